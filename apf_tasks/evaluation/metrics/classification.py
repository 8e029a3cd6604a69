"""Accuracy, precision, recall and F1 of single labels, from per-row counts. N rows, L labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.rows import check_rows


def confusion_statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> Counts:
    """(N, 3 * L): for each label, is it correctly predicted, is it predicted, is it the reference.

    Accuracy and macro scores need no more of the confusion matrix than its diagonal and its margins, and 3 * L columns
    hold for 150 labels where L * L do not. A prediction outside `label_names` is wrong and counts for no label.
    """
    check_rows(references, predictions)
    names = pd.Index([str(name) for name in label_names])
    reference = names.get_indexer(pd.Index([str(r) for r in references]))  # (N,)
    predicted = names.get_indexer(pd.Index([str(p) for p in predictions]))
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
        "accuracy": ratio(correct.sum(-1), references.sum(-1)),
        "macro_precision": ratio(correct, predicted).mean(-1),
        "macro_recall": ratio(correct, references).mean(-1),
        "macro_f1": ratio(2 * correct, predicted + references).mean(-1),
    }


def ratio(part: Counts, whole: Counts) -> Counts:
    """part / whole, 0 where whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


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


def draw_confusion(references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str], path: Path) -> None:
    """A picture of which label is taken for which, as shares of each reference label."""
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    side = max(4.0, 0.5 * len(names) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        references, predictions, labels=list(names), normalize="true", values_format=".2f", ax=axes,
        colorbar=False, cmap="Blues", xticks_rotation="vertical" if len(names) > 4 else "horizontal",
    )  # fmt: skip
    axes.set_title("share of each reference label")
    figure.savefig(path, dpi=110)
