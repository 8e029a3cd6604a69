"""The rules of the gate on rows that are made so that one part of them fails."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from apf_tasks.artifacts import VersionScores
from apf_tasks.data.rows import write_rows
from apf_tasks.params.experiment import Params
from apf_tasks.promotion.gate import check_scores


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


def test_the_slice_with_the_largest_loss_decides(tmp_path: Path) -> None:
    right = ["positive", "negative"] * 4
    champion = contender(tmp_path / "old", "models:/reviews/1", right)
    challenger = contender(tmp_path / "new", "models:/reviews/2", [*right[:6], "negative", "positive"])
    written = {"family": "sentiment", "name": "reviews", "data": {"source": "rows.jsonl"}, "model": {"base": "tiny"}}
    gate = {"slice_loss": 0.4, "label_loss": 0.4, "label_rows": 2, "size_growth": 2}
    params = Params.model_validate(written | {"select": {"metric": "accuracy"}, "gate": gate})
    rules = {rule.name: rule for rule in check_scores(challenger, champion, params).rules}
    assert rules["slice_loss"].found == "longest quarter: -1.0000 on 2 rows"
    assert not rules["slice_loss"].passed
    assert rules["label_loss"].found == "positive: -0.2500 on 4 rows"
    assert rules["label_loss"].passed
    params = params.model_copy(update={"gate": params.gate.model_copy(update={"label_rows": 4})})
    rules = {rule.name: rule for rule in check_scores(challenger, champion, params).rules}
    assert rules["slice_loss"].found == "group books: -0.5000 on 4 rows"
    assert rules["beat_champion"].passed is False
