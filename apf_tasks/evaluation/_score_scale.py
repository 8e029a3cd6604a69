"""How far a score is from perfect, as an error that a power law can describe, and how a difference is said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apf_tasks.evaluation._power_law import Floats
from apf_tasks.evaluation.metrics.table import SCALES


@dataclass(frozen=True)
class Scale:
    """A metric's best value, its direction and its unit."""

    metric: str
    sign: int
    """1 where more is better, -1 where less is."""
    top: float | None
    """The best value where more is better."""
    logarithmic: bool = False
    """A perplexity: power laws hold for its logarithm, the loss."""

    def error(self, scores: Floats) -> Floats:
        """Scores → errors, which are 0 at best."""
        if self.logarithmic:
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(scores))
        return scores if self.top is None else self.top - scores

    def score(self, errors: Floats) -> Floats:
        """Errors → scores."""
        if self.logarithmic:
            with np.errstate(over="ignore"):
                return np.asarray(np.exp(errors))
        return errors if self.top is None else self.top - errors

    @property
    def error_name(self) -> str:
        """The error in words."""
        if self.logarithmic:
            return f"log({self.metric})"
        return self.metric if self.top is None else f"{self.top:g} - {self.metric}"

    @property
    def in_points(self) -> bool:
        """Whether a hundredth of the scale is a point."""
        return SCALES.get(self.metric) not in ("from 0", "from 1")

    @property
    def unit(self) -> str:
        """What stands behind a difference."""
        return f" points of {self.metric}" if self.in_points else f" in {self.metric}"

    def shown(self, difference: float) -> str:
        """A difference of two scores, signed."""
        if self.in_points:
            text = f"{difference * (1 if self.top == 100 else 100):+.1f}"
            text = "0.0" if text in ("+0.0", "-0.0") else text
        else:
            text = f"{difference:+.3g}"
        return text.replace("-", "−")


def scale_of(metric: str, sign: int) -> Scale:
    """The scale of a family's metric; `sign` is the family's."""
    if SCALES.get(metric) == "from 1":
        return Scale(metric, sign, None, logarithmic=True)
    if sign < 0:
        return Scale(metric, sign, None)
    return Scale(metric, sign, 100 if SCALES.get(metric) == "0 to 100" else 1)
