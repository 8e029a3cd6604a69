"""Scores of predicted numbers: correlations and errors. N rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.classification import ratio
from apf_tasks.evaluation.metrics.rows import check_rows

CONSTANT = 1e-12
"""A sum of squares around the mean below this share of the plain one is rounding: all values are the same."""


def regression_statistics(references: Sequence[float], predictions: Sequence[float]) -> Counts:
    """(N, 13): one; x, y, xx, yy, xy of the values; the same five of their ranks; absolute error; squared error.

    Values and ranks are taken from their mean over the split, which changes no correlation and keeps the sums of
    squares exact. Ranks (the mean rank for ties) are those within the whole split, also when rows are drawn again:
    the interval of the Spearman correlation is that of a Pearson correlation of fixed ranks. Raises DataError when a
    number is not finite.
    """
    from scipy.stats import rankdata

    check_rows(references, predictions)
    x, y = np.asarray(references, dtype=np.float64), np.asarray(predictions, dtype=np.float64)  # (N,)
    for name, values in (("references", x), ("predictions", y)):
        if not np.isfinite(values).all():
            found = f"{values[~np.isfinite(values)][0]}"
            raise DataError("score", f"{name} that are finite numbers", found, "Check the first such row.")
    columns = [np.ones(len(x)), *_moments(x, y), *_moments(rankdata(x), rankdata(y)), abs(x - y), (x - y) ** 2]
    return np.stack(columns, axis=1)


def _moments(x: Counts, y: Counts) -> tuple[Counts, ...]:
    x, y = x - x.sum() / max(1, len(x)), y - y.sum() / max(1, len(y))
    return x, y, x * x, y * y, x * y


def regression_scores(sums: np.ndarray) -> Scores:
    """pearson, spearman, mae and mse from sums of `regression_statistics`, (..., 13) -> (...).

    A correlation is 0 where all references or all predictions are the same. Lower is better for mae (mean absolute
    error) and mse (mean squared error).
    """
    sums = np.asarray(sums, dtype=np.float64)
    rows = sums[..., 0]
    return {
        "pearson": _correlation(rows, sums[..., 1:6]),
        "spearman": _correlation(rows, sums[..., 6:11]),
        "mae": ratio(sums[..., 11], rows),
        "mse": ratio(sums[..., 12], rows),
    }


def _correlation(rows: Counts, moments: Counts) -> Counts:
    """(n xy - x y) / sqrt((n xx - x²)(n yy - y²)), the product-moment correlation from sums; (..., 5) -> (...)."""
    x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    spread_x, spread_y = rows * xx - x * x, rows * yy - y * y
    varies = (spread_x > CONSTANT * rows * xx) & (spread_y > CONSTANT * rows * yy)
    spread = np.sqrt(np.where(varies, spread_x * spread_y, 0))
    return np.clip(ratio(rows * xy - x * y, spread), -1, 1)
