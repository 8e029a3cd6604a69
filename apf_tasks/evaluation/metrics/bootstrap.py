"""Scores from per-row counts, and how sure they are.

Every metric is a function of sums of per-row statistics, so a bootstrap resample is a weighted sum of rows and all
resamples are one matrix product. N rows, K statistics, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apf_tasks.errors import DataError

Counts = NDArray[np.float64]
Scores = dict[str, np.ndarray]
ScoresFunction = Callable[[np.ndarray], Scores]

WEIGHTS_AT_ONCE = 4_000_000
"""Entries of the weight matrix held in memory (32 MB of float64)."""


def bootstrap(
    statistics: np.ndarray, scores_fn: ScoresFunction, resamples: int, seed: int, confidence: float
) -> dict[str, tuple[float, float]]:
    """Percentile interval of every score when the rows are drawn again with replacement.

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    scores = resampled_scores(statistics, scores_fn, resamples, seed)
    return {name: percentiles(values, confidence) for name, values in scores.items()}


def resampled_scores(statistics: np.ndarray, scores_fn: ScoresFunction, resamples: int, seed: int) -> Scores:
    """Every score of every resample of the rows, (R,) each; their standard deviation is the score's standard error."""
    return scores_fn(_resampled_sums(statistics, resamples, seed))


@dataclass(frozen=True)
class PairedDifference:
    """By how much a scores higher than b on the same rows, and the interval of that difference."""

    difference: float
    low: float
    high: float

    def better(self, sign: int) -> bool:
        """Whether a is reliably better: the whole interval lies on its side (`sign` is -1 where less is better)."""
        return self.low > 0 if sign > 0 else self.high < 0

    def __str__(self) -> str:
        """The difference and its interval, signed."""
        return f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired_bootstrap(
    statistics_a: np.ndarray,
    statistics_b: np.ndarray,
    scores_fn: ScoresFunction,
    metric: str,
    resamples: int,
    seed: int,
    confidence: float,
) -> PairedDifference:
    """Difference of a metric, a minus b, with both scored on the same resampled rows.

    Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation.
    """
    if len(statistics_a) != len(statistics_b):
        expected, found = f"{len(statistics_a):,} rows in both", f"{len(statistics_b):,} in one"
        raise DataError("compare", expected, found, "Score the same rows.")
    observed = scores_fn(statistics_a.sum(axis=0))[metric] - scores_fn(statistics_b.sum(axis=0))[metric]
    columns = statistics_a.shape[1]
    both = _resampled_sums(np.concatenate([statistics_a, statistics_b], axis=1), resamples, seed)  # (R, 2 * K)
    differences = scores_fn(both[:, :columns])[metric] - scores_fn(both[:, columns:])[metric]
    return PairedDifference(float(observed), *percentiles(differences, confidence))


def percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The central interval that holds `confidence` of the values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled_sums(statistics: np.ndarray, resamples: int, seed: int) -> Counts:
    """Sums of the statistics over each resample of the rows, (R, K)."""
    values = np.asarray(statistics, dtype=np.float64)
    return np.concatenate([weights @ values for weights in _weights(len(values), resamples, seed)])


def _weights(rows: int, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each row is drawn in each resample, in pieces of (R', N); every resample draws N rows.

    Drawing row numbers and counting them is the multinomial distribution, several times faster than drawing from it.
    """
    if not rows:
        raise DataError("bootstrap", "at least one row", "none", "Give the split some rows.")
    random = np.random.default_rng(seed)
    step = max(1, WEIGHTS_AT_ONCE // rows)
    for at in range(0, resamples, step):
        count = min(step, resamples - at)
        drawn = random.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)
