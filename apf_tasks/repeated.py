"""What came of repeating a run: its scores and predictions beside the recorded ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from apf_tasks.past_runs import PastRun
from apf_tasks.stage import Journal

COMPARED = ("test/", "validation/", "held_out/")
"""Metrics of a pipeline run that a repetition has to meet again."""


class Alike(NamedTuple):
    """How many of the recorded test rows got the same prediction again."""

    rows: int
    same: int


@dataclass(frozen=True)
class Repeated:
    """A past run and its repetition."""

    past: PastRun
    done: Journal
    fresh: bool
    metrics: dict[str, float]
    """Of the repetition."""
    alike: Alike | None
    """None where no rows are predicted."""

    @property
    def scores(self) -> dict[str, tuple[float | None, float | None]]:
        """Metric -> (recorded, now); None where one of them lacks it."""
        then, now = self.past.metrics, self.metrics
        names = [name for name in {**then, **now} if name.startswith(COMPARED)]
        return {name: (then.get(name), now.get(name)) for name in sorted(names)}

    @property
    def equal(self) -> bool:
        """Whether every recorded number came again, to the last bit, and so did every prediction."""
        numbers = all(_same(then, now) for then, now in self.scores.values())
        return bool(self.past.metrics) and numbers and (self.alike is None or self.alike.same == self.alike.rows)


def _same(then: float | None, now: float | None) -> bool:
    if then is None or now is None:
        return then is now
    return then == now or (math.isnan(then) and math.isnan(now))


def same_predictions(recorded: Path, now: Path) -> Alike:
    """Compare the predictions of two `predictions.parquet` files by row id."""
    from apf_tasks.rows import read_rows

    tables = [read_rows(path) for path in (recorded, now)]
    then, again = (dict(zip(table["row_id"], map(repr, table["prediction"]), strict=True)) for table in tables)
    return Alike(len(then.keys() | again.keys()), sum(again.get(row_id) == found for row_id, found in then.items()))
