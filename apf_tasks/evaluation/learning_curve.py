"""Scores of trainings on growing parts of train → a learning curve, and what more rows would bring. P points."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apf_tasks.artifacts import LearningCurve, TokenizedSplit, TrainedModel
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.evaluation._curve_picture import CurvePoints, draw_curve
from apf_tasks.evaluation._power_law import FEWEST_POINTS, Extrapolation, Floats, extrapolate
from apf_tasks.evaluation._score_scale import Scale, scale_of
from apf_tasks.evaluation.metrics.bootstrap import resampled_scores
from apf_tasks.evaluation.selection import validation_statistics
from apf_tasks.family import Family, get_family
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.search import EvaluationParams

CURVE, PICTURE = "curve.json", "curve.png"
NOTICED_STRETCH, MOST_STRETCH = 1.05, 3.0
"""From here on the scatter is said; beyond the second the points are taken to lie on no power law at all. By the chance
of the validation rows alone, four points come so far once in 400 cases (a normal deviate beyond 3)."""
NOTE = (
    "The interval covers sampling of the validation rows. Another seed, or other rows of the same number, would move "
    "the points too. Smaller parts are trained for as many epochs, hence for fewer steps."
)


class Gain(NamedTuple):
    """What twice the rows would add to the metric."""

    value: float
    low: float
    high: float

    @property
    def told(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def learning_curve(
    out: Path,
    models: tuple[TrainedModel, ...],
    parts: tuple[TokenizedSplit, ...],
    family: FamilyParams,
    intervals: EvaluationParams,
) -> LearningCurve:
    """Score each model on validation, fit a power law and ask it about twice the rows of the last point.

    All points are scored on the same redrawn rows, so what they have in common is no uncertainty of their difference.
    """
    functions, metric = get_family(family), models[0].metric
    scale = scale_of(metric, functions.sign(metric))
    rows = np.asarray([part.rows for part in parts], dtype=np.float64)
    scores = np.asarray([model.scores[metric] for model in models], dtype=np.float64)
    resampled = _resampled_scores(models, functions, metric, intervals)
    tails = [(1 - intervals.confidence) / 2, (1 + intervals.confidence) / 2]
    low, high = np.quantile(resampled, tails, axis=0)
    fitted = extrapolate(rows, scale.error(scores), scale.error(resampled))
    untold = _why_untold(rows, bool(scale.error(scores)[-1] <= 0), fitted)
    gain = None if fitted is None or untold else _gain(fitted, scale, rows[-1], scores[-1], tails)
    verdict = untold if gain is None or fitted is None else _verdict(rows[-1], gain, fitted.stretch, scale)
    draw_curve(out / PICTURE, CurvePoints(rows, scores, low, high), fitted, scale, tails, verdict)
    document: dict[str, Any] = {
        "metric": metric,
        "confidence": intervals.confidence,
        "points": [_point(*one) for one in zip(parts, models, low, high, strict=True)],
        "fit": None if fitted is None else _fit(fitted, scale),
        "twice_the_rows": None if gain is None else {"rows": int(2 * rows[-1]), **gain._asdict(), "told": gain.told},
        "verdict": verdict,
        "note": NOTE,
    }
    (out / CURVE).write_text(json.dumps(document, indent=1), encoding="utf-8")
    return LearningCurve(
        path=out,
        fingerprint=fingerprint_files(out, [CURVE]),
        metric=metric,
        rows=tuple(part.rows for part in parts),
        scores=tuple(scores.tolist()),
        intervals=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        gain=gain.value if gain is not None and gain.told else None,
        gain_interval=None if gain is None else (gain.low, gain.high),
        verdict=verdict,
    )


def _resampled_scores(
    models: Sequence[TrainedModel], family: Family, metric: str, intervals: EvaluationParams
) -> Floats:
    """The metric of every model on the same redrawn validation rows, (R, P)."""
    counts = [validation_statistics(model, family) for model in models]
    cuts = np.cumsum([c.shape[1] for c in counts])[:-1]

    def of_each(sums: np.ndarray) -> dict[str, np.ndarray]:  # (R, P * K)
        return {str(i): family.scores(one)[metric] for i, one in enumerate(np.split(sums, cuts, axis=1))}

    found = resampled_scores(np.concatenate(counts, axis=1), of_each, intervals.resamples, intervals.seed)
    return np.stack(list(found.values()), axis=1)


def _gain(fitted: Extrapolation, scale: Scale, rows: float, score: float, tails: list[float]) -> Gain:
    """From `rows` to twice as many along the curve, and along those that chance could have drawn.

    Never more than what `score`, the one measured at `rows`, leaves to gain.
    """
    sizes = np.asarray([rows, 2 * rows])
    now, then = scale.score(fitted.law.errors(sizes))[0]
    chance = scale.score(fitted.chance.errors(sizes))  # (R, 2)
    gains = np.asarray([then - now, *np.quantile(chance[:, 1] - chance[:, 0], tails)])
    most = scale.score(np.zeros(1))[0] - score
    return Gain(*(np.minimum(gains, most) if most > 0 else np.maximum(gains, most)).tolist())


def _why_untold(rows: Floats, perfect: bool, fitted: Extrapolation | None) -> str:
    """Why nobody can tell what twice the rows would bring; "" when the fit may be asked."""
    if perfect:
        why = "there are no errors left on these validation rows"
    elif len(rows) < FEWEST_POINTS:
        why = f"at least {FEWEST_POINTS} points are needed"
    elif fitted is None:
        why = "all scores are equal"
    elif fitted.stretch > MOST_STRETCH:
        why = f"the points are {fitted.stretch:.1f} times as far from a power law as the validation rows explain. Train"
        why += " the small parts longer, or leave them out"
    else:
        return ""
    return f"What twice the rows would bring cannot be told: {why}."


def _verdict(rows: float, gain: Gain, stretch: float, scale: Scale) -> str:
    """What twice the rows would bring."""
    last = f"{rows:,.0f} → {2 * rows:,.0f}"
    low, high = scale.shown(gain.low), scale.shown(gain.high)
    if not gain.told:
        said = f"What twice the rows ({last}) would bring cannot be told from these points: anything from {low} to"
        said += f" {high}{scale.unit}."
    else:
        said = f"Twice the rows ({last}) would bring about {scale.shown(gain.value)}{scale.unit} ({low} … {high})."
        worse = gain.value * scale.sign < 0
        said += " More rows made it worse: check the trainings before you label more." if worse else ""
    if stretch > NOTICED_STRETCH:
        said += f" The points are {stretch:.1f} times as far from a power law as the validation rows explain;"
        said += " the interval is widened accordingly."
    return said


def _point(part: TokenizedSplit, model: TrainedModel, low: float, high: float) -> dict[str, Any]:
    return {
        "rows": part.rows,
        "examples": part.examples,
        "optimizer_steps": model.optimizer_steps,
        "best_step": model.best_step,
        "score": model.scores[model.metric],
        "interval": [float(low), float(high)],
        "run_id": model.run_id,
    }


def _fit(fitted: Extrapolation, scale: Scale) -> dict[str, Any]:
    law = fitted.law
    return {
        "form": f"error(n) = floor + fall * (n / {law.largest:.0f}) ** -exponent, error = {scale.error_name}",
        "floor": float(law.floor[0]),
        "fall": float(law.fall[0]),
        "exponent": float(law.exponent[0]),
        "exponents_of_chance": np.quantile(fitted.chance.exponent, [0.05, 0.5, 0.95]).tolist(),
        "stretch": fitted.stretch,
    }
