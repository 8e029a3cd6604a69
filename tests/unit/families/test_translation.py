"""Translations: what becomes a row, from which file, what is looked up, and what a program would miss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from apf_tasks.data.ingestion import ingest
from apf_tasks.examples import Examples, token_table
from apf_tasks.families.translation import PLACEHOLDERS, TranslationParams, lost_placeholders, nearest
from apf_tasks.family import BaselineInputs, Family, get_family
from apf_tasks.params.data import DataParams
from tests.support.tiny import write_jsonl

NO_TOKENS = Examples(token_table({"input_ids": [[1]], "labels": [[1]]}))


def params(**options: Any) -> TranslationParams:
    return TranslationParams.model_validate({"name": "translation"} | options)


def family(**options: Any) -> Family:
    return get_family(params(**options))


def evidence(pairs: Sequence[tuple[str, str]]) -> BaselineInputs:
    return BaselineInputs(pd.DataFrame(pairs, columns=["source", "target"]), NO_TOKENS)


def ingested(folder: Path, options: dict[str, Any], **data: Any) -> list[tuple[str, str]]:
    ingest(folder, DataParams.model_validate({"max_rejected": 0.9} | data), params(**options))
    table = pd.read_parquet(folder / "rows.parquet")
    return list(zip(table["source"], table["target"], strict=True))


# Options


def test_languages() -> None:
    with pytest.raises(ValueError, match="source_language and target_language are the same"):
        params(source_language="zh")
    assert params().instruction == "Translate from English to Chinese.\n\n{source}\n\nChinese:\n"
    assert params(target_language="sw").instruction.endswith("sw:\n")
    assert family(source_language="zh", target_language="en").example["source"].endswith("。")


# Rows


def test_every_bad_pair_has_its_reason() -> None:
    rows = pd.DataFrame(
        {"source": ["a", None, None, " ", "a", ["a"]], "target": [None, "b", None, "b", {"x": "b"}, "b"]}, dtype=object
    )
    assert family().check(rows).reasons.tolist() == [
        "no target",
        "no source",
        "neither source nor target",
        "no source",
        "target is not a text",
        "source is not a text",
    ]


def test_suspicious_pairs_are_counted_and_kept() -> None:
    usual = [("word " * 4, "wort " * 4)] * 5
    odd = [("OK", " OK "), ("word " * 30, "w"), ("w", "wort " * 30), ("w", "wort")]
    rows = pd.DataFrame([*usual, *odd, (None, "x")], columns=["source", "target"], dtype=object)
    found = family(target_language="de").check(rows)
    assert found.reasons.tolist() == [""] * 9 + ["no source"]
    assert found.notes == {
        "targets that are equal to their source": 1,
        "targets of a length that is unusual for their source": 2,  # four letters for one are no wonder
    }


def test_columns_are_called_by_their_languages(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"en": "\nSave: %1 ", "zh": "\n保存：%1 "}, {"en": "a", "zh": ""}])
    # what surrounds a message stays with it
    assert ingested(tmp_path, {}, source=str(path)) == [("\nSave: %1 ", "\n保存：%1 ")]
    assert json.loads((tmp_path / "rejected.jsonl").read_text())["reason"] == "no target"
    other = {"source_language": "zh", "target_language": "en"}
    assert ingested(tmp_path, other, source=str(path)) == [("\n保存：%1 ", "\nSave: %1 ")]


def test_one_column_of_both_languages(tmp_path: Path) -> None:
    rows = [{"translation": {"de": "ja", "en": "yes"}}, {"translation": {"de": "nein"}}, {"translation": "no"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)  # type: ignore[arg-type]
    assert ingested(tmp_path, {"target_language": "de"}, source=str(path)) == [("yes", "ja")]
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert reasons == ["no source", "neither source nor target"]


def test_parallel_files(tmp_path: Path) -> None:
    (tmp_path / "all.en").write_text("yes\nno\n")
    (tmp_path / "all.de").write_text("ja\nnein\n")
    found = ingested(tmp_path, {"target_language": "de"}, source=str(tmp_path / "all.{en,de}"))
    assert found == [("yes", "ja"), ("no", "nein")]


def test_a_catalogue_in_both_directions(tmp_path: Path) -> None:
    (tmp_path / "zh.po").write_text('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
                                    'msgid "&File"\nmsgstr "文件(&F)"\n', encoding="utf-8")  # fmt: skip
    assert ingested(tmp_path, {}, source=str(tmp_path / "zh.po")) == [("&File", "文件(&F)")]
    back = {"source_language": "zh", "target_language": "en"}
    columns = {"source": "target", "target": "source"}
    assert ingested(tmp_path, back, source=str(tmp_path / "zh.po"), columns=columns) == [("文件(&F)", "&File")]


# Baselines


def test_the_most_similar_row_is_looked_up() -> None:
    known = ["open the file", "close the window", "打开文件", "open the file"]
    assert nearest(["Open a file", "the windows", "文件", "file"], known) == [0, 1, 2, 0]


def test_baselines_are_the_source_and_the_nearest_target() -> None:
    train = evidence([("open the file", "打开文件"), ("close the window", "关闭窗口")])
    found = family().baselines(train, evidence([("open the files", ""), ("windows", "")]), 0)
    assert found == {"copied_source": ["open the files", "windows"], "nearest_train_row": ["打开文件", "关闭窗口"]}


# Scores


@pytest.mark.parametrize(("target", "tokenize"), [("zh", "zh"), ("de", "13a")])
def test_an_empty_output_counts_as_empty(target: str, tokenize: str) -> None:
    references, outputs = ["打开 the 文件 now", "一 two 三 four"], ["打开 the 文件 now", ""]
    translation = family(target_language=target)
    found = translation.scores(translation.statistics(references, outputs, ()).sum(0))
    assert float(found["bleu"]) == pytest.approx(BLEU(tokenize=tokenize).corpus_score(outputs, [references]).score)
    assert float(found["chrf"]) == pytest.approx(CHRF().corpus_score(outputs, [references]).score)
    assert float(found["bleu"]) < 70


# What a program would miss


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("printf", "%s of %1$s, %d%%, %.2f, %(name)s, %-5d, %ld, %1", "%s %1$s %d %.2f %(name)s %-5d %ld %1"),
        ("printf", "50% sure, 100%, 20%discount, 5 %", ""),
        ("braces", "{name} {0} {{count}} ${path} {}", "{name} {0} {{count}} ${path} {}"),
        ("variable", "%PRODUCTNAME and $(ARG1), %s", "%PRODUCTNAME"),
        ("variable", "$(ARG) costs $5", "$(ARG)"),
        ("tag", "<b>bold</b> <br/> 1 < 2 > 0", "<b> </b> <br/>"),
        ("accelerator", "&File, E&xit, ~Open, Cu~t, _Edit", "& & ~ ~ _"),
        ("accelerator", "R&D, AT&T, Cut & Paste, &amp; &nbsp; snake_case, ~5, __init__", ""),
        ("line break", "a\nb\n", "\n \n"),
    ],
)
def test_placeholders(kind: str, text: str, found: str) -> None:
    assert PLACEHOLDERS[kind].findall(text) == [part for part in found.split(" ") if part]


def test_lost_placeholders_are_counted_beside_those_of_the_references() -> None:
    found = lost_placeholders(
        ["&File %s\n", "%s %s {name}", "plain"],
        ["文件(&F) %s", "%s", "%d"],
        ["文件(&F) %s\n", "%s %s", "plain"],
    )
    assert found["kinds"]["printf"] == {"in_sources": 3, "lost": 1, "lost_in_references": 0}
    assert found["kinds"]["braces"] == {"in_sources": 1, "lost": 1, "lost_in_references": 1}
    assert found["kinds"]["line break"] == {"in_sources": 1, "lost": 1, "lost_in_references": 0}
    assert found["kinds"]["accelerator"] == {"in_sources": 1, "lost": 0, "lost_in_references": 0}
    assert found["kinds"]["tag"]["in_sources"] == 0
    assert [example["lost"] for example in found["examples"]] == [["\n"], ["%s", "{name}"]]


def test_the_report_has_signatures_and_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = pd.DataFrame({"source": ["a", "b", "c"], "target": ["甲", "乙", "丙"]})
    predictions = [{"prediction": text, "finished": done} for text, done in (("甲", True), ("b", True), (" ", False))]
    details = family().details
    assert details is not None
    with caplog.at_level("INFO", logger="apf"):
        found = details(rows, predictions, (), tmp_path)
    assert (found["equal_to_source"], found["empty"], found["unfinished"]) == (1, 1, 1)
    assert "tok:zh" in found["signatures"]["bleu"]
    assert found["signatures"]["bleu"] in caplog.text
