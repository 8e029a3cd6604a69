"""What a challenger has forgotten is told on rows that it cannot have learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from apf_tasks.artifacts import Split, VersionScores
from apf_tasks.data.rows import write_rows
from apf_tasks.params.experiment import Params
from apf_tasks.params.gate import GateParams
from apf_tasks.promotion._forgetting import GENERAL, NEW, OLD, VersionPair, old_and_new, rules
from apf_tasks.promotion.gate import SliceComparison

WRITTEN = {"family": "sentiment", "name": "reviews", "data": {"source": "rows.jsonl"}, "model": {"base": "tiny"}}
PARAMS = Params.model_validate(WRITTEN | {"select": {"metric": "accuracy"}, "test": {"resamples": 100}})


def split(folder: Path, **texts: list[str]) -> Split:
    folder.mkdir()
    for name, of in texts.items():
        write_rows(pd.DataFrame({"text": of}), folder / f"{name}.parquet")
    return Split.model_construct(path=folder, fingerprint=folder.name)


def scored(folder: Path, uri: str, right: dict[str, bool]) -> VersionScores:
    """A version that is right about some texts."""
    folder.mkdir()
    table = pd.DataFrame({"row_id": list(right), "text": list(right), "reference": "good"})
    table["prediction"] = ["good" if is_right else "bad" for is_right in right.values()]
    write_rows(table, folder / "predictions.parquet")
    facts: dict[str, Any] = {"path": folder, "fingerprint": uri, "uri": uri, "label_names": ("bad", "good")}
    return VersionScores.model_construct(**facts)


def test_rows_that_the_challenger_was_trained_on_and_those_of_then_are_left_out(tmp_path: Path) -> None:
    then = split(tmp_path / "then", test=["a", "b", "c", "d"])
    today = split(tmp_path / "today", train=["d", "x"], test=["a", "e", "f"])
    on_then = VersionPair(
        scored(tmp_path / "1", "new", {"a": True, "b": False, "c": False, "d": True}),
        scored(tmp_path / "2", "old", {"a": True, "b": True, "c": False, "d": False}),
    )
    on_today = VersionPair(
        scored(tmp_path / "3", "new", {"a": True, "e": True, "f": True}),
        scored(tmp_path / "4", "old", {"a": True, "e": True, "f": False}),
    )
    old, new = old_and_new(then, today, on_then, on_today, PARAMS)
    assert (old.name, old.rows, new.name, new.rows) == (OLD, 3, NEW, 2), "without d, which it learned, and without a"
    assert (old.champion, old.challenger) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (new.champion, new.challenger) == (0.5, 1.0)


def test_where_no_row_is_left_nothing_is_compared(tmp_path: Path) -> None:
    then, today = split(tmp_path / "then", test=["a"]), split(tmp_path / "today", train=["a"], test=["a"])
    same = VersionPair(scored(tmp_path / "1", "new", {"a": True}), scored(tmp_path / "2", "old", {"a": True}))
    assert old_and_new(then, today, same, same, PARAMS) == []


def compared(name: str, champion: float, challenger: float) -> SliceComparison:
    facts = {"rows": 10, "metric": "score", "reliable": True, "said": ""}
    return SliceComparison.model_validate({"name": name, "champion": champion, "challenger": challenger, **facts})


@pytest.mark.parametrize(
    ("sign", "champion", "challenger", "passed"),
    [(1, 0.9, 0.8, True), (1, 0.9, 0.6, False), (-1, 0.6, 0.9, False), (-1, 0.9, 0.6, True)],
)
def test_so_much_may_be_forgotten(sign: int, champion: float, challenger: float, passed: bool) -> None:
    gate = GateParams.model_validate({"forgetting": 0.2})
    [rule] = rules([compared(NEW, 1.0, 0.0), compared(OLD, champion, challenger)], gate, sign)
    assert (rule.name, rule.passed) == ("forgetting", passed), rule.found


def test_general_text_may_become_so_much_less_likely() -> None:
    gate = GateParams.model_validate({"perplexity_growth": 1.1, "general_text": "text.txt"})
    found = [rules([compared(GENERAL, 20.0, perplexity)], gate, -1) for perplexity in (21.9, 22.1)]
    assert [rule.passed for of in found for rule in of] == [True, False]


def test_rules_that_are_not_asked_for_or_have_no_rows_are_not_there() -> None:
    assert list(rules([compared(OLD, 1.0, 0.0), compared(GENERAL, 1.0, 9.0)], GateParams(), 1)) == []
    assert list(rules([compared(NEW, 1.0, 0.0)], GateParams.model_validate({"forgetting": 0.2}), 1)) == []
