"""What the learning curve stage hands on."""

from __future__ import annotations

from apf_tasks.artifacts import Artifact, Interval, Score


class LearningCurve(Artifact):
    """`curve.json` and `curve.png`: validation scores after training on growing parts of train."""

    metric: str
    rows: tuple[int, ...]
    """Train rows of each point, ascending."""
    scores: tuple[Score, ...]
    intervals: tuple[Interval, ...]
    gain: float | None
    """What twice the rows of the last point would add to the metric; None where the points do not say."""
    gain_interval: Interval | None
    verdict: str
    """One sentence: what would twice the rows bring?"""

    def describe(self) -> str:
        return self.verdict
