"""`apf check` looks at the first rows of a source: what a run would refuse is told before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apf_tasks.data import source_check
from apf_tasks.data.source_check import source_problems
from apf_tasks.params.data import DataParams
from apf_tasks.params.family import FamilyParams

GOOD = "text,label\n" + "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(40))


def problems(path: Path, content: str = "", **data: Any) -> list[str]:
    if content:
        path.write_text(content)
    params = DataParams.model_validate({"source": str(path), **data})
    return source_problems(params, FamilyParams(name="sentiment"))


def test_a_good_source_has_no_problems(tmp_path: Path) -> None:
    assert problems(tmp_path / "a.csv", GOOD) == []
    assert source_problems(DataParams(source="hub:someone/reviews"), FamilyParams(name="sentiment")) == []


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "nowhere.csv")
    assert "expected a file or folder that exists, found no nowhere.csv" in problem


def test_all_missing_columns_are_told_at_once(tmp_path: Path) -> None:
    first, second = problems(tmp_path / "a.csv", GOOD.replace("text,label", "body,queue"))
    assert ("a column 'text'" in first, "a column 'label'" in second) == (True, True)
    (problem,) = problems(tmp_path / "a.csv", columns={"text": "body", "labl": "queue"})
    assert "Did you mean label?" in problem


def test_a_wrong_delimiter_is_told_with_the_setting_that_mends_it(tmp_path: Path) -> None:
    told = problems(tmp_path / "a.csv", GOOD, delimiter=";")
    assert len(told) == 2
    assert all("found the columns text,label" in problem for problem in told)


def test_unusable_rows_and_a_single_label_are_told(tmp_path: Path) -> None:
    told = problems(tmp_path / "a.csv", "text,label\na,x\nb,x\n,x\nc,\n")
    assert told == [
        "data.source: expected at most 1.0% unusable rows (data.max_rejected), found 2 among the first 4 "
        "(empty text: 1, no label: 1)",
        "data.source: expected several labels, found 'x' alone in the first 2 rows",
    ]


def test_only_the_first_rows_of_a_small_source_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_check, "ROWS", 40)
    assert problems(tmp_path / "a.csv", GOOD + ",x\n" * 40) == []
    monkeypatch.setattr(source_check, "MOST_BYTES", 10)
    assert problems(tmp_path / "a.csv", "no,columns\n") == []
