"""Scores of sets of labels, from per-row counts. N rows, L labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.classification import ratio
from apf_tasks.evaluation.metrics.rows import check_rows


def multilabel_statistics(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], label_names: Sequence[str]
) -> Counts:
    """(N, 3 * L + 2): per label correctly predicted, predicted, in the reference; then exact match and one.

    A predicted label outside `label_names` counts for no label but spoils the exact match. Raises DataError when a
    reference is outside.
    """
    check_rows(references, predictions)
    known = {str(name): at for at, name in enumerate(label_names)}
    counts = np.zeros((len(references), 3, len(known)))  # (N, 3, L)
    exact = np.zeros((len(references), 2))
    for at, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        true, predicted = {str(name) for name in reference}, {str(name) for name in prediction}
        if unknown := sorted(true - known.keys()):
            expected = "references among " + ", ".join(known)
            raise DataError("score", expected, repr(unknown[0]), "Train on rows with this label.")
        for place, labels in enumerate((true & predicted, predicted & known.keys(), true)):
            counts[at, place, [known[name] for name in labels]] = 1
        exact[at] = true == predicted, 1
    return np.concatenate([counts.reshape(len(references), -1), exact], axis=1)


def multilabel_scores(sums: np.ndarray) -> Scores:
    """Scores from sums of `multilabel_statistics`, (..., 3 * L + 2) -> (...), as scikit-learn with zero_division=0.

    micro: over all decisions; macro_f1: plain mean over all labels. subset_accuracy: rows whose whole set is right.
    hamming_loss: wrong decisions of all rows * labels; lower is better.
    """
    sums = np.asarray(sums, dtype=np.float64)
    correct, predicted, true = np.split(sums[..., :-2], 3, axis=-1)  # each (..., L)
    exact, rows = sums[..., -2], sums[..., -1]
    wrong = (predicted + true - 2 * correct).sum(-1)
    return {
        "micro_f1": ratio(2 * correct.sum(-1), (predicted + true).sum(-1)),
        "macro_f1": ratio(2 * correct, predicted + true).mean(-1),
        "micro_precision": ratio(correct.sum(-1), predicted.sum(-1)),
        "micro_recall": ratio(correct.sum(-1), true.sum(-1)),
        "subset_accuracy": ratio(exact, rows),
        "hamming_loss": ratio(wrong, rows * correct.shape[-1]),
    }
