"""Question answering: reading answers, windows and places, spans, merging, scores."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from apf_tasks.data.batching import collate
from apf_tasks.errors import ModelError
from apf_tasks.evaluation.metrics.answers import ALWAYS_ANSWER
from apf_tasks.evaluation.predictor import Placement, Predictor, predict_rows
from apf_tasks.examples import Examples, token_table
from apf_tasks.families.question_answering.answers import NOWHERE, Answer, nearest, place_answers, target
from apf_tasks.families.question_answering.family import QuestionAnsweringParams
from apf_tasks.families.question_answering.report import best_overlap_sentence, first_sentence, question_kind, sentences
from apf_tasks.families.question_answering.windows import (
    best_spans,
    encode_windows,
    frame_of,
    log_probabilities,
    texts_of,
    windows,
)
from apf_tasks.family import BaselineInputs, Family, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.data import DataParams
from apf_tasks.params.model import ModelParams
from apf_tasks.sources.reading import read_source
from tests.support.paths import PROJECT
from tests.support.tiny import ENCODERS, tiny_model

SMOKE = PROJECT / "params" / "smoke" / "data"
CONTEXT = "The old mill in Ghent was built in 1785 by Mara. It was closed in 1901, and Mara never came back."


def family(**options: object) -> Family:
    return get_family(QuestionAnsweringParams.model_validate({"name": "question_answering", **options}))


def rows_of(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def asked(*answers: object, flag: object = None, context: object = CONTEXT, question: object = "Who?") -> str:
    """The reason that one row gets."""
    rows = rows_of(context=[context], question=[question], answers=list(answers) or [None], is_impossible=[flag])
    return str(family().check(rows).reasons[0])


def smoke_rows(name: str) -> pd.DataFrame:
    """The checked rows of a smoke file, read as the ingest stage reads them."""
    (_, table), *_ = read_source(DataParams(source=str(SMOKE / name)))
    rows = pd.DataFrame({c: pd.Series(table.values(i), dtype=object) for i, c in enumerate(table.columns)})
    checked = family().check(rows)
    assert set(checked.reasons) == {""}
    return checked.rows


def model_folder(folder: Path, architecture: str = "bert", texts: list[str] | None = None, **options: object) -> Path:
    """A tiny model whose tokenizer knows the smoke rows."""
    known = smoke_rows("question_answering.json")
    texts = texts or [*known["context"], *known["question"], CONTEXT]
    return tiny_model(folder / architecture, architecture, texts=texts, **options)  # type: ignore[arg-type]


def base_of(folder: Path, max_tokens: int = 64) -> BaseModelInfo:
    return load_base(folder, ModelParams(base=str(folder), max_tokens=max_tokens))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("qa"))


# what is read


def test_every_form_of_answers_becomes_one() -> None:
    wanted = [[{"text": "1785", "answer_start": 35}]] * 4
    rows = rows_of(
        context=[CONTEXT] * 4,
        question=["When?"] * 4,
        answers=[
            [{"text": "1785", "answer_start": 35}],
            {"text": ["1785"], "answer_start": [35]},
            ["1785"],
            {"text": "1785", "answer_start": 35},
        ],
    )
    checked = family().check(rows)
    assert checked.reasons.tolist() == [""] * 4
    assert checked.rows["answers"].tolist() == wanted
    assert checked.notes == {"answer_start missing, the answer found": 1}


def test_flat_rows_of_a_csv_file() -> None:
    rows = rows_of(
        context=[CONTEXT] * 5,
        question=["When?"] * 5,
        answer=["1785", "1785", None, None, None],
        answer_start=["35", None, None, "-1", None],
        is_impossible=[None, "False", "true", None, None],
    )
    checked = family().check(rows)
    assert checked.reasons.tolist() == [
        "",
        "",
        "",
        "",
        "no answer (if the context has none, is_impossible has to be true)",
    ]
    assert [len(a) for a in checked.rows["answers"]] == [1, 1, 0, 0, 0]
    assert checked.rows["answers"][1][0]["answer_start"] == 35


def test_each_bad_row_gets_its_reason() -> None:
    there = [{"text": "Mara", "answer_start": 43}]
    assert asked(there) == ""
    assert asked(there, question=None) == "no question"
    assert asked(there, context=None) == "no context"
    assert asked(there, context=["a"]) == "the context is not text"
    assert asked([{"text": "Paris", "answer_start": 3}]) == "the answer is not in its context"
    assert asked(None) == "no answer (if the context has none, is_impossible has to be true)"
    assert asked([], flag="false") == "no answer, but is_impossible is false"
    assert asked([], flag="maybe") == "is_impossible is neither true nor false"
    assert asked(there, flag="true") == "is_impossible, but there are answers"
    assert asked([{"text": " ", "answer_start": 3}]) == "empty answer"
    assert asked("3", flag="3.5") == "is_impossible is neither true nor false"
    assert asked([{"answer_start": 3}]) == "answer 1 has no text"
    assert asked([{"text": "Mara", "answer_start": "x"}]) == "answer_start is not a whole number"
    assert asked([{"text": "Mara", "answer_start": 1.5}]) == "answer_start is not a whole number"
    assert asked({"answer_start": [3]}) == "the answers have no list `text`"
    assert asked({"text": ["Mara"], "answer_start": [1, 2]}) == "`answer_start` and `text` differ in number"


def test_no_answer_is_said_in_three_ways() -> None:
    assert asked([]) == ""
    assert asked({"text": [], "answer_start": []}) == ""
    assert asked([{"text": "", "answer_start": -1}]) == ""
    assert asked(None, flag="true") == ""


def test_places_are_repaired_and_counted() -> None:
    rows = rows_of(
        context=[CONTEXT] * 3,
        question=["Who?"] * 3,
        answers=[
            [{"text": "Mara", "answer_start": 70}],  # nearer to the second one, at 76
            [{"text": " Ghent ", "answer_start": 15}],
            [
                {"text": "Mara", "answer_start": 43},
                {"text": "a miller", "answer_start": 0},
                {"text": "", "answer_start": 0},
            ],
        ],
    )
    checked = family().check(rows)
    assert checked.reasons.tolist() == ["", "", ""]
    assert checked.rows["answers"].tolist() == [
        [{"text": "Mara", "answer_start": 76}],
        [{"text": "Ghent", "answer_start": 16}],
        [{"text": "Mara", "answer_start": 43}, {"text": "a miller", "answer_start": NOWHERE}],
    ]
    assert checked.notes == {
        "answer_start was wrong, the answer found elsewhere": 1,
        "white space around an answer removed": 1,
        "answers not in their context, kept as references next to others that are": 1,
        "empty answers among others left out": 1,
    }
    assert family().reference(checked.rows)[2] == ["Mara", "a miller"]


@pytest.mark.parametrize(("start", "found"), [(0, 0), (1, 0), (2, 3), (3, 3), (5, 6), (99, 6), (-5, 0)])
def test_the_nearest_occurrence(start: int, found: int) -> None:
    assert nearest("ab ab ab", "ab", start) == found
    assert nearest("ab ab ab", "x", start) == NOWHERE


def test_training_points_at_what_most_annotators_gave() -> None:
    placed, _ = place_answers(CONTEXT, [Answer("in 1785", 32), Answer("1785", 35), Answer("1785", 35), Answer("no", 1)])
    assert target(placed) == (35, 39)
    assert target(placed[:2]) == (32, 39)
    assert target(placed[3:]) is None


# windows


@pytest.mark.parametrize(
    ("tokens", "room", "overlap", "found"),
    [
        (0, 4, 1, [(0, 0)]),
        (4, 4, 1, [(0, 4)]),
        (5, 4, 1, [(0, 4), (3, 5)]),
        (10, 4, 2, [(0, 4), (2, 6), (4, 8), (6, 10)]),
        (3, 1, 0, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_windows_cover_every_token(tokens: int, room: int, overlap: int, found: list[tuple[int, int]]) -> None:
    assert list(windows(0, tokens, room, overlap)) == found


def test_one_window_by_hand(bert: Path) -> None:
    base = base_of(bert)
    rows = family().check(rows_of(context=["Mara opened it."], question=["Who?"], answers=[["opened it"]])).rows
    columns = family().encode(rows, base, ())
    words = base.tokenizer.convert_ids_to_tokens(columns["input_ids"][0])
    assert words[0] == "[CLS]"
    assert words[-1] == "[SEP]"
    first, last = columns["labels"][0]
    shift = words.index("[SEP]") + 1
    assert columns["token_type_ids"][0] == [0] * shift + [1] * (len(words) - shift)
    assert columns["offset_end"][0][:shift] == [0] * shift  # nothing of the question can be an answer
    assert (columns["offset_start"][0][first], columns["offset_end"][0][last]) == (5, 14)
    assert columns["truncated"] == [False]
    assert columns["row"] == [0]


def test_a_long_context_gives_windows_and_one_of_them_holds_the_answer(bert: Path) -> None:
    base = base_of(bert, 32)
    context = "Few people knew about it at first. " * 6 + "Selma opened the museum in Graz in 1953."
    rows = family().check(rows_of(context=[context], question=["Who opened the museum?"], answers=[["Selma"]])).rows
    columns = family(stride=8).encode(rows, base, ())
    assert len(columns["row"]) > 2
    assert max(map(len, columns["input_ids"])) == 32
    covered = {
        c for s, e in zip(columns["offset_start"], columns["offset_end"], strict=True) for c in _characters(s, e)
    }
    assert covered == {i for i, character in enumerate(context) if character != " "}
    for labels, starts, ends in zip(columns["labels"], columns["offset_start"], columns["offset_end"], strict=True):
        if "Selma" in context[min(s for s, e in zip(starts, ends, strict=True) if e) : max(ends)]:
            assert context[starts[labels[0]] : ends[labels[1]]] == "Selma"
        else:
            assert labels == [0, 0]
    assert [labels for labels in columns["labels"] if labels != [0, 0]], "a window holds the answer"


def _characters(starts: list[int], ends: list[int]) -> set[int]:
    return {c for s, e in zip(starts, ends, strict=True) for c in range(s, e)}


def test_rows_do_not_depend_on_their_neighbours(bert: Path) -> None:
    base, rows = base_of(bert, 40), smoke_rows("question_answering.json").head(20)
    together = family(stride=8).encode(rows, base, ())
    alone = [family(stride=8).encode(rows.iloc[[i]], base, ()) for i in range(20)]
    for name in ("input_ids", "offset_start", "labels"):
        assert together[name] == [value for one in alone for value in one[name]]


def test_a_question_longer_than_half_is_cut_and_counted(bert: Path) -> None:
    base = base_of(bert, 16)
    rows = rows_of(context=["Mara opened it."] * 2, question=["Who opened the old mill in Ghent in 1785?" * 3, "Who?"])
    columns = family(stride=100).encode(rows, base, ())  # a stride wider than the window is narrowed
    assert dict(zip(columns["row"], columns["truncated"], strict=True)) == {0: True, 1: False}
    assert max(map(len, columns["input_ids"])) <= 16
    shortest = base_of(bert, 8)
    assert max(map(len, family().encode(rows, shortest, ())["input_ids"])) == 8


def test_empty_served_texts_are_answered_by_nothing(bert: Path) -> None:
    base, served = base_of(bert), rows_of(context=["", "  \n "], question=["Who?", ""])
    assert _predicted(bert, base, served, family())[0]["prediction"] == ""
    assert _predicted(bert, base, served, family())[1]["start"] == -1


def test_a_slow_tokenizer_is_refused(bert: Path) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(
        ModelError, match="expected a tokenizer that knows the characters of its tokens, found a slow one"
    ):
        frame_of(BaseModelInfo(Slow(), base_of(bert).config, 64))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "tokenizer"), [("bert", "wordpiece"), ("roberta", "bpe"), ("deberta-v2", "unigram")]
)
def test_answers_come_back_exactly(tmp_path: Path, architecture: str, tokenizer: str) -> None:
    """Runs of whole words out of the project's own documents come back as they are."""
    pages = [path.read_text(encoding="utf-8") for path in sorted((PROJECT / "docs").glob("*.md"))]
    texts = [p.strip() for page in pages for p in page.split("\n\n") if 80 < len(p) < 2000][:60]
    folder = model_folder(tmp_path, architecture, texts=texts, tokenizer=tokenizer, vocab_size=600)
    base = base_of(folder)
    random, checked = np.random.default_rng(0), 0
    for text, tokens in zip(texts, texts_of(texts, base), strict=True):
        words = [match.span() for match in re.finditer(r"\S+", text)]
        for _ in range(10):
            i, j = sorted(random.integers(0, len(words), 2))
            first, end = words[i][0], words[j][1]
            span = tokens.span(first, end)
            assert span is not None
            assert text[tokens.starts[span[0]] : tokens.ends[span[1]]] == text[first:end]
            checked += 1
    assert checked > 200


def test_odd_characters_keep_their_places(tmp_path: Path) -> None:
    text = "  Café\u00a0„Nord“ — 😀 Straße 5，我爱北京。\n\nKraftwerk"
    folder = model_folder(tmp_path, "roberta", texts=[text] * 20)
    tokens = texts_of([text], base_of(folder))[0]
    for wanted in ("Café", "😀", "Straße", "我爱北京", "Kraftwerk"):
        first = text.index(wanted)
        span = tokens.span(first, first + len(wanted))
        assert span is not None
        found = text[tokens.starts[span[0]] : tokens.ends[span[1]]]
        assert wanted in found
        assert found == found.strip()
    assert tokens.span(0, 2) is None  # nothing but blanks


def test_answers_inside_tokens_are_told_and_widened(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = family().check(rows_of(context=["Mara opened it."], question=["Who?"], answers=[["pene"]])).rows
    with caplog.at_level("INFO", logger="apf"):
        columns = encode_windows(rows, base_of(bert), stride=8, max_answer_tokens=30)
    assert "1 of 1 answers begin or end inside a token" in caplog.text
    first, last = columns["labels"][0]
    assert "pene" in "Mara opened it."[columns["offset_start"][0][first] : columns["offset_end"][0][last]]


def test_answers_out_of_reach_are_told(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = family().check(rows_of(context=[CONTEXT], question=["What?"], answers=[[CONTEXT]])).rows
    with caplog.at_level("INFO", logger="apf"):
        columns = encode_windows(rows, base_of(bert, 24), stride=8, max_answer_tokens=5)
    assert "1 of 1 answers have more than family.max_answer_tokens (5) tokens" in caplog.text
    assert "1 of 1 answers are longer than a window, or lie across two" in caplog.text
    assert set(map(tuple, columns["labels"])) == {(0, 0)}


# models


def _predicted(
    folder: Path, base: BaseModelInfo, rows: pd.DataFrame, kind: Family, dtype: torch.dtype = torch.float32
) -> list[dict[str, object]]:
    torch.manual_seed(0)
    model = kind.load_model(folder, ModelParams(base=str(folder)), ())
    network = Predictor(model, base, kind, (), Placement(torch.device("cpu"), dtype))
    return predict_rows(network, Examples(token_table(kind.encode(rows, base, ()))), rows, {})


@pytest.mark.parametrize("architecture", ENCODERS)
def test_every_architecture_learns_and_answers(tmp_path: Path, architecture: str) -> None:
    folder, rows, kind = model_folder(tmp_path, architecture), smoke_rows("question_answering.json").head(8), family()
    base = base_of(folder)
    columns = kind.encode(rows, base, ())
    assert ("token_type_ids" in columns) == (architecture in ("bert", "electra"))
    torch.manual_seed(0)
    model = kind.load_model(folder, ModelParams(base=str(folder)), ())
    columns.pop("truncated"), columns.pop("row")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train(False)
    losses = []
    for _ in range(12):
        loss = kind.loss(model, collate(columns, base.pad_id, torch.device("cpu")))
        loss.backward()
        idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == [], "a gradient for every parameter"
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    found = _predicted(folder, base, rows, kind)
    assert len(found) == 8
    for answer, context in zip(found, rows["context"], strict=True):
        assert answer["prediction"] == context[answer["start"] : answer["start"] + len(str(answer["prediction"]))]  # type: ignore[operator]
        assert answer["prediction"] == str(answer["prediction"]).strip() != ""


def test_the_loss_is_cross_entropy_over_the_places_an_answer_can_have(bert: Path) -> None:
    base, kind = base_of(bert), family()
    long = kind.check(rows_of(context=[CONTEXT], question=["Who built it, and when?"], answers=[["1785 by Mara"]])).rows
    columns = kind.encode(pd.concat([smoke_rows("question_answering.json").head(6), long], ignore_index=True), base, ())
    assert columns["labels"][-1][0] < columns["labels"][-1][1], "an answer of several tokens"
    columns.pop("truncated"), columns.pop("row")
    torch.manual_seed(0)
    model = kind.load_model(bert, ModelParams(base=str(bert)), ())
    model.train(False)
    batch = collate(columns, base.pad_id, torch.device("cpu"))
    output = model(batch["input_ids"], attention_mask=batch["attention_mask"], token_type_ids=batch["token_type_ids"])
    wanted = 0.0
    for i, labels in enumerate(columns["labels"]):
        places = [0] + [t for t, end in enumerate(columns["offset_end"][i]) if end]
        for logits, label in zip((output.start_logits[i], output.end_logits[i]), labels, strict=True):
            wanted += float(F.cross_entropy(logits[places], torch.tensor(places.index(label))).detach())
    assert float(kind.loss(model, batch).detach()) == pytest.approx(wanted, rel=1e-5)


def test_cuts_and_padding_do_not_matter(bert: Path) -> None:
    base, rows, kind = base_of(bert, 40), smoke_rows("question_answering.json").head(12), family(stride=8)
    together = _predicted(bert, base, rows, kind)
    for i in range(12):
        alone = _predicted(bert, base, rows.iloc[[i]].reset_index(drop=True), kind)[0]
        assert alone["prediction"] == together[i]["prediction"]
        assert alone["score"] == pytest.approx(together[i]["score"], rel=1e-4)
        assert alone["null_difference"] == pytest.approx(together[i]["null_difference"], abs=1e-4)


def test_the_best_spans_of_all() -> None:
    torch.manual_seed(0)
    ends = torch.tensor([[0, 0, 2, 3, 3, 7, 9, 0], [0, 0, 0, 1, 4, 0, 0, 0]])
    starts = torch.tensor([[0, 0, 1, 2, 2, 5, 8, 0], [0, 0, 0, 0, 2, 0, 0, 0]])
    batch = {"offset_start": starts, "offset_end": ends}
    first, last = log_probabilities(torch.randn(2, 8), torch.randn(2, 8), batch)
    assert torch.allclose(first.exp().sum(-1), torch.ones(2))
    found = best_spans(first, last, batch, n_best=6, max_answer_tokens=3)
    for window, real in zip((0, 1), ([2, 3, 4, 5, 6], [3, 4]), strict=True):
        possible = [(i, j) for i, j in itertools.product(real, real) if 0 <= j - i < 3]
        ranked = sorted(possible, key=lambda ij: -float(first[window, ij[0]] + last[window, ij[1]]))[:6]
        wanted = [(int(starts[window, i]), int(ends[window, j])) for i, j in ranked]
        assert [(s, e) for s, e, _ in found[window]["spans"]] == wanted
        assert found[window]["null"] == pytest.approx(float(first[window, 0] + last[window, 0]))


# rows


def _windows(*windows: tuple[float, list[tuple[int, int, float]]]) -> list[dict[str, object]]:
    return [{"null": null, "spans": spans} for null, spans in windows]


def test_the_best_window_answers() -> None:
    kind, rows = family(n_best=2), rows_of(context=[CONTEXT], question=["Who?"])
    pieces = [_windows((-0.2, [(16, 21, -3.0), (35, 39, -4.0)]), (-2.5, [(43, 47, -0.5), (16, 21, -6.0)]))]
    answer = kind.merge(rows, pieces, None, {})[0]  # type: ignore[arg-type]
    assert (answer["prediction"], answer["start"]) == ("Mara", 43)
    assert answer["score"] == pytest.approx(math.exp(-0.5))
    assert answer["null_difference"] == pytest.approx(-2.0)  # the most promising window's null against the best span
    assert [(a["text"], a["start"]) for a in answer["n_best"]] == [("Mara", 43), ("Ghent", 16)]
    left_out = kind.merge(rows, pieces, None, {"threshold": -2.1})[0]  # type: ignore[arg-type]
    assert (left_out["prediction"], left_out["start"]) == ("", -1)
    assert left_out["score"] == pytest.approx(math.exp(-2.5))


def test_a_threshold_is_chosen_on_validation_and_decides() -> None:
    kind, rows = family(), rows_of(context=[CONTEXT] * 3, question=["Who?"] * 3)
    pieces = [
        _windows((-3.0, [(43, 47, -0.2)])),
        _windows((-1.0, [(16, 21, -1.5)])),
        _windows((-0.1, [(35, 39, -5.0)])),
    ]
    first = kind.merge(rows, pieces, None, {})  # type: ignore[arg-type]
    assert [answer["prediction"] == "" for answer in first] == [False] * 3, "without a threshold all are answered"
    assert kind.tune is not None
    settings = kind.tune([["Mara"], ["Ghent"], []], first)
    assert settings["threshold"] == pytest.approx(0.5)
    again = kind.merge(rows, pieces, None, settings)  # type: ignore[arg-type]
    assert [answer["prediction"] for answer in again] == ["Mara", "Ghent", ""]
    assert kind.tune([["Mara"], ["Ghent"], ["1785"]], first) == {"threshold": ALWAYS_ANSWER}


def test_scores_by_the_rules_of_each_language() -> None:
    en, zh = family(), family(language="zh")
    found = en.scores(en.statistics([["the old mill", "mill"], []], ["an old mill!", "something"], ()).sum(axis=0))
    assert {name: float(value) for name, value in found.items()} == {"f1": 0.5, "exact_match": 0.5}
    found = zh.scores(zh.statistics([["北京大学。"]], ["北京的大学"], ()).sum(axis=0))
    assert float(found["f1"]) == pytest.approx(2 * 2 / (4 + 5))  # the longest common run, not the bag
    assert float(found["exact_match"]) == 0.0


def test_sentences_and_baselines() -> None:
    assert sentences("Use a.out 2.5 times. Then stop!\nReally? yes") == [
        "Use a.out 2.5 times.",
        "Then stop!",
        "Really?",
        "yes",
    ]
    assert sentences("他在北京。她在上海！") == ["他在北京。", "她在上海！"]
    assert first_sentence("...") == "..."
    assert (
        best_overlap_sentence("When was it closed?", CONTEXT, "en")
        == "It was closed in 1901, and Mara never came back."
    )
    assert best_overlap_sentence("谁在上海？", "他在北京。她在上海！", "zh") == "她在上海！"
    rows = rows_of(context=[CONTEXT, "他在北京。"], question=["When was the mill closed?", "谁？"])
    found = family().baselines(BaselineInputs(rows, None), BaselineInputs(rows, None), 0)  # type: ignore[arg-type]
    assert found["first_sentence"] == ["The old mill in Ghent was built in 1785 by Mara.", "他在北京。"]


@pytest.mark.parametrize(
    ("question", "language", "kind"),
    [
        ("In which year?", "en", "which"),
        ("How many?", "en", "how many/much"),
        ("How so?", "en", "how"),
        ("Name it.", "en", "other"),
        ("他是谁？", "zh", "who"),
        ("哪一年建成？", "zh", "when"),
        ("有多少人？", "zh", "how many/much"),
        ("为什么？", "zh", "why"),
        ("在哪里？", "zh", "where"),
    ],
)
def test_kinds_of_questions(question: str, language: Literal["en", "zh"], kind: str) -> None:
    assert question_kind(question, language) == kind


def test_details_tell_where_it_is_weak(tmp_path: Path) -> None:
    kind = family()
    rows = rows_of(
        question=["Who?", "Who else?", "When?"],
        answers=[[{"text": "Mara", "answer_start": 43}], [], [{"text": "in 1785", "answer_start": 32}]],
    )
    predictions = [{"prediction": p, "threshold": 0.5} for p in ("Mara", "Ghent", "")]
    assert kind.details is not None
    found = kind.details(rows, predictions, (), tmp_path)
    assert found["by_question_word"]["who"] == {"rows": 2, "f1": 0.5, "exact_match": 0.5}
    assert list(found["by_answer_length"]) == ["1", "2-3", "no answer"]
    assert found["by_answer"]["no answer"] == {"rows": 1, "f1": 0.0, "exact_match": 0.0}
    assert found["answered"] == {"rightly_given": 1, "wrongly_given": 1, "rightly_left_out": 0, "wrongly_left_out": 1}
    assert found["threshold"] == 0.5
    assert (tmp_path / "answers.png").stat().st_size > 5000


def test_the_example_can_be_served(bert: Path) -> None:
    for language in ("en", "zh"):
        kind = family(language=language)
        answer = _predicted(bert, base_of(bert), pd.DataFrame([dict(kind.example)]), kind)[0]
        assert set(kind.output_columns) <= set(answer)
        assert 0 <= float(str(answer["score"])) <= 1
