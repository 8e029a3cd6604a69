"""The rules of the gate on rows that are made so that one part of them fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from apf_tasks.artifacts import VersionScores
from apf_tasks.data.rows import write_rows
from apf_tasks.params.experiment import Params
from apf_tasks.promotion.gate import check_scores, latency_rule, serving_rule


def contender(folder: Path, uri: str, predictions: list[str]) -> VersionScores:
    """A version that says this of eight rows, two of each length, in two groups."""
    folder.mkdir()
    names = [["positive"], ["negative"]] * 4
    rows = pd.DataFrame(
        {
            "row_id": [str(i) for i in range(8)],
            "text": ["word " * (1 + i // 2) for i in range(8)],
            "labels": pd.Series(names),
            "reference": [name[0] for name in names],
            "prediction": predictions,
            "group": ["films", "films", "books", "books"] * 2,
        }
    )
    write_rows(rows, folder / "predictions.parquet")
    return VersionScores(
        path=folder,
        fingerprint=uri,
        uri=uri,
        model_fingerprint=uri,
        rows=8,
        scores={"accuracy": 0.0},
        label_names=("negative", "positive"),
        model_bytes=1,
    )


def params_with(gate: dict[str, Any], **sections: Any) -> Params:
    written = {"family": "sentiment", "name": "reviews", "data": {"source": "rows.jsonl"}, "model": {"base": "tiny"}}
    return Params.model_validate(written | {"select": {"metric": "accuracy"}, "gate": gate} | sections)


@pytest.mark.parametrize(
    ("metric", "score", "passed"),
    [("accuracy", 0.8, True), ("accuracy", 0.7, False), ("mae", 0.7, True), ("mae", 0.8, False)],
)
def test_a_minimum_is_the_worst_that_is_allowed(tmp_path: Path, metric: str, score: float, passed: bool) -> None:
    sections: dict[str, Any] = {"select": {"metric": metric}}
    if metric == "mae":
        sections["family"] = {"name": "sentiment", "target": "score", "score_range": [0, 5]}
    challenger = contender(tmp_path / "new", "models:/reviews/2", ["positive"] * 8)
    challenger = challenger.model_copy(update={"scores": {metric: score}})
    [rule] = check_scores(challenger, None, params_with({"minimum": 0.75}, **sections)).rules
    assert (rule.name, rule.passed) == ("minimum", passed), f"needed {rule.needed}, found {rule.found}"


def test_time_size_and_serving_have_their_limits(tmp_path: Path) -> None:
    gate = params_with({"latency_growth": 1.5, "size_growth": 2}).gate
    assert [latency_rule([seconds, 0.01], gate).passed for seconds in (0.015, 0.016)] == [True, False]
    assert [serving_rule(problem).passed for problem in (None, "no answer")] == [True, False]
    both = [contender(tmp_path / name, f"models:/reviews/{name}", ["positive"] * 8) for name in "12"]
    for size, passed in ((2, True), (3, False)):
        challenger = both[1].model_copy(update={"model_bytes": size})
        rules = {rule.name: rule for rule in check_scores(challenger, both[0], params_with({"size_growth": 2})).rules}
        assert rules["size_growth"].passed is passed, rules["size_growth"].found


def test_the_slice_with_the_largest_loss_decides(tmp_path: Path) -> None:
    right = ["positive", "negative"] * 4
    champion = contender(tmp_path / "old", "models:/reviews/1", right)
    challenger = contender(tmp_path / "new", "models:/reviews/2", [*right[:6], "negative", "positive"])
    params = params_with({"slice_loss": 0.4, "label_loss": 0.4, "label_rows": 2, "size_growth": 2})
    rules = {rule.name: rule for rule in check_scores(challenger, champion, params).rules}
    assert rules["slice_loss"].found == "longest quarter: -1.0000 on 2 rows"
    assert not rules["slice_loss"].passed
    assert rules["label_loss"].found == "positive: -0.2500 on 4 rows"
    assert rules["label_loss"].passed
    params = params.model_copy(update={"gate": params.gate.model_copy(update={"label_rows": 4})})
    rules = {rule.name: rule for rule in check_scores(challenger, champion, params).rules}
    assert rules["slice_loss"].found == "group books: -0.5000 on 4 rows"
    assert rules["beat_champion"].passed is False
