"""What came of repeating a run: its scores and predictions beside the recorded ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from apf_tasks.cache.journal import PipelineRun
from apf_tasks.tracking.past_runs import PastRun

COMPARED = ("test/", "validation/", "held_out/")
"""Metrics of a pipeline run that a repetition has to meet again."""


class PredictionMatch(NamedTuple):
    """How many of the recorded test rows came out alike again."""

    rows: int
    predicted: int
    """With the same prediction."""
    exact: int
    """With all else that belongs to it too, probabilities and baselines, to the last bit."""


@dataclass(frozen=True)
class RerunResult:
    """A past run and its repetition."""

    past: PastRun
    done: PipelineRun
    fresh: bool
    metrics: dict[str, float]
    """Of the repetition."""
    alike: PredictionMatch | None
    """None where no rows are predicted."""

    @property
    def scores(self) -> dict[str, tuple[float | None, float | None]]:
        """Metric -> (recorded, now); None where one of them lacks it."""
        then, now = self.past.metrics, self.metrics
        names = [name for name in {**then, **now} if name.startswith(COMPARED)]
        return {name: (then.get(name), now.get(name)) for name in sorted(names)}

    @property
    def equal(self) -> bool:
        """Whether every recorded number and every row of predictions came again, to the last bit."""
        numbers = all(same_number(then, now) for then, now in self.scores.values())
        return bool(self.past.metrics) and numbers and (self.alike is None or self.alike.exact == self.alike.rows)


def same_number(then: float | None, now: float | None) -> bool:
    """Whether two numbers are the same, to the last bit; NaN is like NaN."""
    if then is None or now is None:
        return then is now
    return then == now or (math.isnan(then) and math.isnan(now))


def same_predictions(recorded: Path, now: Path) -> PredictionMatch:
    """Compare the predictions of two `predictions.parquet` files by row id."""
    from apf_tasks.data.rows import read_rows

    then, again = ({row["row_id"]: row for row in read_rows(path).to_dict("records")} for path in (recorded, now))
    both = [(then[row_id], again[row_id]) for row_id in then if row_id in again]
    return PredictionMatch(
        rows=len(then.keys() | again.keys()),
        predicted=sum(repr(first["prediction"]) == repr(second["prediction"]) for first, second in both),
        exact=sum(repr(first) == repr(second) for first, second in both),
    )
