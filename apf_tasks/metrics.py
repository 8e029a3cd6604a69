"""Scores from per-row counts, and how sure they are.

Every metric is a function of sums of per-row statistics, so a bootstrap resample is a weighted sum of rows and all
resamples are one matrix product. N rows, K statistics, L labels, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apf_tasks.errors import DataError

Counts = NDArray[np.float64]
Scores = dict[str, np.ndarray]
ScoresFunction = Callable[[np.ndarray], Scores]

WEIGHTS_AT_ONCE = 4_000_000
"""Entries of the weight matrix held in memory (32 MB of float64)."""


def confusion_statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> Counts:
    """(N, 3 * L): for each label, is it correctly predicted, is it predicted, is it the reference.

    Accuracy and macro scores need no more of the confusion matrix than its diagonal and its margins, and 3 * L columns
    hold for 150 labels where L * L do not. A prediction outside `label_names` is wrong and counts for no label.
    """
    names = pd.Index([str(name) for name in label_names])
    reference = names.get_indexer(pd.Index([str(r) for r in references]))  # (N,)
    predicted = names.get_indexer(pd.Index([str(p) for p in predictions]))
    if len(reference) != len(predicted):
        raise DataError("score", f"{len(reference):,} predictions", f"{len(predicted):,}", "Predict every row once.")
    if (reference < 0).any():
        expected, unknown = "references among " + ", ".join(names), references[int(np.argmin(reference))]
        raise DataError("score", expected, repr(str(unknown)), "Train on rows with this label.")
    is_reference = reference[:, None] == np.arange(len(names))  # (N, L)
    is_predicted = predicted[:, None] == np.arange(len(names))
    return np.concatenate([is_reference & is_predicted, is_predicted, is_reference], axis=1).astype(np.float64)


def classification_scores(sums: np.ndarray) -> Scores:
    """Accuracy and macro precision, recall and F1 from sums of `confusion_statistics`, (..., 3 * L) -> (...).

    Per label: precision = correct / predicted, recall = correct / references, F1 = 2 * correct / (predicted +
    references); 0 where the denominator is 0. Macro: the plain mean over all labels, also those without a row, as
    scikit-learn has it with `labels=label_names, zero_division=0`. Accuracy: all correct / all references.
    """
    correct, predicted, references = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)  # each (..., L)
    return {
        "accuracy": _ratio(correct.sum(-1), references.sum(-1)),
        "macro_precision": _ratio(correct, predicted).mean(-1),
        "macro_recall": _ratio(correct, references).mean(-1),
        "macro_f1": _ratio(2 * correct, predicted + references).mean(-1),
    }


def _ratio(part: Counts, whole: Counts) -> Counts:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def bootstrap(
    statistics: np.ndarray, scores_fn: ScoresFunction, resamples: int, seed: int, confidence: float
) -> dict[str, tuple[float, float]]:
    """Percentile interval of every score when the rows are drawn again with replacement.

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    scores = scores_fn(_resampled_sums(statistics, resamples, seed))
    return {name: _percentiles(values, confidence) for name, values in scores.items()}


@dataclass(frozen=True)
class PairedDifference:
    """By how much a scores higher than b on the same rows, and the interval of that difference."""

    difference: float
    low: float
    high: float

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
    return PairedDifference(float(observed), *_percentiles(differences, confidence))


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
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


def per_label(
    references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Label -> precision, recall, f1 and support (reference rows)."""
    from sklearn.metrics import classification_report

    report = classification_report(
        [str(r) for r in references],
        [str(p) for p in predictions],
        labels=list(label_names),
        output_dict=True,
        zero_division=0,
    )
    names = {"precision": "precision", "recall": "recall", "f1": "f1-score", "support": "support"}
    return {label: {ours: float(report[label][theirs]) for ours, theirs in names.items()} for label in label_names}
