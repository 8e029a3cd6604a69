"""Summaries: what becomes a row, the beginning as a baseline, and what the report says of the outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from apf_tasks.data.ingestion import ingest
from apf_tasks.examples import Examples, token_table
from apf_tasks.families.summarization import SummarizationParams, beginning
from apf_tasks.family import BaselineInputs, CheckedRows, Family, get_family
from apf_tasks.params.data import DataParams
from tests.support.tiny import write_jsonl

NO_TOKENS = Examples(token_table({"input_ids": [[1]], "labels": [[1]]}))


def params(**options: Any) -> SummarizationParams:
    return SummarizationParams.model_validate({"name": "summarization"} | options)


def family(**options: Any) -> Family:
    return get_family(params(**options))


def checked(documents: Sequence[Any], short: Sequence[Any], **options: Any) -> CheckedRows:
    rows = pd.DataFrame({"document": pd.Series(documents, dtype=object), "summary": pd.Series(short, dtype=object)})
    return family(**options).check(rows)


def evidence(documents: Sequence[str], summaries: Sequence[str]) -> BaselineInputs:
    return BaselineInputs(pd.DataFrame({"document": documents, "summary": summaries}), NO_TOKENS)


# Rows


def test_every_bad_row_has_its_reason() -> None:
    long = "A text that is long enough."
    found = checked(
        [None, long, "  ", [long, 3], {"body": long}, long, []],
        ["short", None, None, "short", "short", {"a": [None]}, "short"],
        document_key="body",
    )
    assert found.reasons.tolist() == [
        "no document",
        "no summary",
        "no document",
        "document: not a text",
        "",
        "no summary",
        "no document",
    ]
    assert checked([{"head": long}], ["x"], document_key="body").reasons.tolist() == ["document: no 'body' among head"]
    assert checked([{}], ["x"], document_key="body").reasons.tolist() == ["document: no 'body' among nothing"]
    assert checked([long], [[["a"], 1]]).reasons.tolist() == ["summary: not a text"]


def test_lists_and_objects_of_texts_are_joined() -> None:
    found = checked([["One. ", "Two."], {"a": ["One.", "Two."], "b": "Three."}], [["First.", "Second."], " x "]).rows
    assert found["document"].tolist() == ["One. Two.", "One. Two. Three."]
    assert found["summary"].tolist() == ["First. Second.", "x"]
    chinese = checked([["一。", "二。"]], [["三，", "四。"]], language="zh").rows
    assert chinese.iloc[0].tolist() == ["一。二。", "三，四。"]
    one = checked([{"a": ["One.", "Two."], "b": "Three."}], [{"x": "X", "y": "Y"}], document_key="a", summary_key="y")
    assert one.rows.iloc[0].tolist() == ["One. Two.", "Y"]


def test_of_several_summaries_the_first_is_taken_and_that_is_counted() -> None:
    found = checked(["A long text."] * 3, [["one", "two"], ["three"], "four"], summaries="first")
    assert found.rows["summary"].tolist() == ["one", "three", "four"]
    assert found.notes["rows of which only the first of several summaries is used"] == 1


def test_a_summary_as_long_as_its_document_is_counted_and_kept() -> None:
    found = checked(["abcd", "abcd", None], ["abcd", "abc", "abcdef"])
    assert found.reasons.tolist() == ["", "", "no document"]
    assert found.notes["summaries that are not shorter than their document"] == 1


@pytest.mark.parametrize("names", [("text", "summary"), ("article", "highlights"), ("source", "target")])
def test_other_names_of_the_columns(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [{names[0]: [f"Sentence {i}.", "Another."], names[1]: [f"short {i}"]} for i in range(3)]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {names[0]: "Text.", names[1]: ""}])  # type: ignore[list-item]
    raw = ingest(tmp_path, DataParams(source=str(tmp_path / "rows.jsonl"), max_rejected=0.5), params())
    assert raw.columns == ("row_id", "document", "summary", "role")
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert table["document"].tolist() == [f"Sentence {i}. Another." for i in range(3)]
    assert table["summary"].tolist() == [f"short {i}" for i in range(3)]
    rejected = json.loads((tmp_path / "rejected.jsonl").read_text())
    assert rejected == {"file": "rows.jsonl", "row": 4, "reason": "no summary"}


# The beginning of a document


def test_the_first_sentences() -> None:
    text = 'It costs 3.50 a day. "Is it worth it?" Yes! Nobody knows'
    assert [beginning(text, "sentences", k, "en") for k in (1, 2, 3, 4, 9)] == [
        "It costs 3.50 a day.",
        'It costs 3.50 a day. "Is it worth it?"',
        'It costs 3.50 a day. "Is it worth it?" Yes!',
        text,
        text,
    ]
    chinese = "他说：“今天下雨。”我们走吧！好……走"
    assert [beginning(chinese, "sentences", k, "zh") for k in (1, 2, 3, 4)] == [
        "他说：“今天下雨。”",
        "他说：“今天下雨。”我们走吧！",
        "他说：“今天下雨。”我们走吧！好……",
        chinese,
    ]
    assert beginning(chinese, "characters", 4, "zh") == "他说：“"


def test_the_lead_is_as_long_as_suits_the_train_rows() -> None:
    documents = [f"Apples grow in {place}. Pears do not. Rain falls. Snow too." for place in ("Kent", "Oslo", "Rome")]
    summaries = [f"Apples grow in {place}. Pears do not." for place in ("Kent", "Oslo", "Rome")]
    asked = evidence(["Ships sail. They come back. The end.", "One sentence"], ["", ""])
    found = family().baselines(evidence(documents, summaries), asked, 0)
    assert found == {"lead_2_sentences": ["Ships sail. They come back.", "One sentence"]}
    short = [text[: text.index(".")] for text in summaries]
    assert list(family().baselines(evidence(documents, short), asked, 0)) == ["lead_1_sentence"]


def test_a_chinese_lead_can_be_characters() -> None:
    document = "鞍山破获特大抢枪案，犯罪嫌疑人被击毙，被抢走的枪支全部缴获，群众无一伤亡。案件还在进一步审理。"
    found = family(language="zh").baselines(evidence([document], [document[:8]]), evidence(["甲" * 20], [""]), 0)
    assert found == {"lead_8_characters": ["甲" * 8]}


# Scores and report


def test_chinese_is_scored_by_character() -> None:
    chinese = family(language="zh")
    scores = chinese.scores(chinese.statistics(["我爱北京"], ["我爱上海"], ()).sum(0))
    # two of four characters, one of three pairs
    assert {name: round(float(score), 4) for name, score in scores.items()} == {
        "rouge1": 0.5,
        "rouge2": 0.3333,
        "rougeL": 0.5,
        "rougeLsum": 0.5,
    }


def test_the_report_compares_length_and_copying(tmp_path: Path) -> None:
    rows = pd.DataFrame({"document": ["a b c d e f", "g h i j"], "summary": ["a b", "x y"]})
    predictions = [{"prediction": "a b c", "finished": True}, {"prediction": "", "finished": False}]
    assert family().details is not None
    found = family().details(rows, predictions, (), tmp_path)  # type: ignore[misc]
    assert found["empty"] == found["unfinished"] == 1
    ours, theirs = found["length_and_copy"]["predictions"], found["length_and_copy"]["references"]
    assert (ours["mean_tokens"], theirs["mean_tokens"]) == (1.5, 2)
    assert (ours["copied_1"], theirs["copied_1"]) == (1, 0.5)
