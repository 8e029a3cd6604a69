"""What a text can be judged by: one label, several labels, or a score. Shared part of text classification.

B examples, L labels, N rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.family import Prediction

if TYPE_CHECKING:
    import numpy as np
    import torch

Texts = list[str]


@dataclass(frozen=True)
class Target:
    """Everything that depends on what is predicted, and not on the text."""

    column: str
    what: str
    metrics: tuple[str, ...]
    parse: Callable[[Any], tuple[Any, str]]
    """Value as read -> (value, "" or why it cannot be used)."""
    encode: Callable[[Any, Mapping[str, int]], list[float]]
    """(value, label -> number) -> targets of one example."""
    outputs: Callable[[Sequence[str]], dict[str, Any]]
    """Label names -> configuration of the head."""
    loss: Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]
    """(logits (B, L), batch) -> summed loss."""
    decide: Callable[[torch.Tensor, Sequence[str]], list[Prediction]]
    statistics: Callable[[Sequence[Any], Sequence[Any], Sequence[str]], np.ndarray]
    scores: Callable[[np.ndarray], dict[str, np.ndarray]]
    baselines: Callable[[Texts, Sequence[Any], Texts, int], dict[str, Sequence[Any]]]
    """(train texts, train values, test texts, seed) -> name -> predictions."""
    output_columns: Mapping[str, str]
    lower_is_better: frozenset[str] = frozenset()
    details: Callable[[Sequence[Any], Sequence[Prediction], Sequence[str], Path], dict[str, Any]] | None = None
    apply_threshold: Callable[[Prediction, Mapping[str, float]], Prediction] | None = None
    tune: Callable[[Sequence[Any], Sequence[Prediction]], dict[str, float]] | None = None
    labels: Callable[[Sequence[Any]], list[list[str]]] | None = None


def named(label_names: Sequence[str]) -> dict[str, Any]:
    """A head of one output per label."""
    names = dict(enumerate(label_names))
    return {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}}


def one_label() -> Target:
    """One label out of a closed set."""
    return Target(
        column="label",
        what="its label",
        metrics=("accuracy", "macro_f1", "macro_precision", "macro_recall"),
        parse=lambda value: (value, "" if value is not None else "no label"),
        encode=lambda value, number: [number[value]],
        outputs=lambda names: named(names) | {"problem_type": "single_label_classification"},
        loss=_label_loss,
        decide=_label_decide,
        statistics=_label_statistics,
        scores=_label_scores,
        baselines=_label_baselines,
        details=_label_details,
        output_columns={"prediction": "string", "probability": "double"},
    )


def _label_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    import torch.nn.functional as F

    weights = batch.get("class_weights")  # (L,)
    return F.cross_entropy(logits, batch["labels"].squeeze(1), weight=weights, reduction="sum")


def _label_decide(logits: torch.Tensor, label_names: Sequence[str]) -> list[Prediction]:
    probabilities = logits.softmax(-1).cpu().numpy()  # (B, L)
    return [
        {"prediction": label_names[i], "probability": float(p[i]), "probabilities": [float(x) for x in p]}
        for i, p in zip(probabilities.argmax(-1), probabilities, strict=True)
    ]


def _label_baselines(known: Texts, labels: Sequence[Any], asked: Texts, seed: int) -> dict[str, Sequence[Any]]:
    import pandas as pd

    from apf_tasks.families.classification import baselines

    rows = pd.Series(known), pd.Series(labels), pd.Series(asked)
    return {
        "majority": baselines.majority_label(rows[1], len(asked)),
        "tfidf_logistic_regression": baselines.tfidf_logistic_regression(*rows, seed),
        "averaged_vectors_logistic_regression": baselines.averaged_vectors_logistic_regression(*rows, seed),
    }


def _label_details(
    references: Sequence[Any], predictions: Sequence[Prediction], names: Sequence[str], out: Path
) -> dict[str, Any]:
    from apf_tasks.evaluation.metrics.classification import draw_confusion, per_label

    found = [p["prediction"] for p in predictions]
    draw_confusion(references, found, names, out / "confusion.png")
    return {"per_label": per_label(references, found, names)}


def several_labels(separator: str) -> Target:
    """Any number of labels at once; a label holds above a probability that validation chooses."""

    def parse(value: Any) -> tuple[Any, str]:
        if value is None:
            return None, "no labels (an empty list means none of them)"
        if isinstance(value, str):
            value = value.split(separator)
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            return None, f"labels are neither a list of texts nor a text separated by {separator!r}"
        return sorted({v.strip() for v in value if v.strip()}), ""

    def apply_threshold(found: Prediction, settings: Mapping[str, float]) -> Prediction:
        threshold = settings.get("threshold", 0.5)
        labels = [name for name, p in found["probabilities"].items() if p >= threshold]
        shown = json.dumps(found["probabilities"], ensure_ascii=False)
        return {"prediction": labels, "labels": separator.join(labels), "probabilities": shown}

    return Target(
        column="labels",
        what="its labels, any number of them",
        metrics=("micro_f1", "macro_f1", "micro_precision", "micro_recall", "subset_accuracy", "hamming_loss"),
        lower_is_better=frozenset({"hamming_loss"}),
        parse=parse,
        encode=lambda value, number: [int(name in value) for name in number],
        outputs=lambda names: named(names) | {"problem_type": "multi_label_classification"},
        loss=_labels_loss,
        decide=_labels_decide,
        apply_threshold=apply_threshold,
        tune=_labels_tune,
        labels=lambda values: [list(v) for v in values],
        statistics=_labels_statistics,
        scores=_labels_scores,
        baselines=_labels_baselines,
        output_columns={"labels": "string", "probabilities": "string"},
    )


def _labels_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    import torch.nn.functional as F

    return F.binary_cross_entropy_with_logits(logits, batch["labels"].float(), reduction="sum")


def _labels_decide(logits: torch.Tensor, label_names: Sequence[str]) -> list[Prediction]:
    return [{"probabilities": dict(zip(label_names, p, strict=True))} for p in logits.sigmoid().cpu().numpy().tolist()]


def _labels_tune(references: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, float]:
    names = list(json.loads(predictions[0]["probabilities"]))
    probabilities = [json.loads(p["probabilities"]) for p in predictions]

    def micro_f1(threshold: float) -> float:
        found = [[n for n, p in row.items() if p >= threshold] for row in probabilities]
        return float(_labels_scores(_labels_statistics(references, found, names).sum(axis=0))["micro_f1"])

    candidates = [i / 20 for i in range(1, 20)]
    return {"threshold": max(candidates, key=lambda t: (micro_f1(t), -abs(t - 0.5)))}


def _labels_baselines(known: Texts, labels: Sequence[Any], asked: Texts, seed: int) -> dict[str, Sequence[Any]]:
    from apf_tasks.families.classification import baselines

    return {
        "majority": baselines.frequent_labels(labels, len(asked)),
        "tfidf_logistic_regression": baselines.tfidf_one_against_rest(known, labels, asked, seed),
    }


def score(low: float, high: float) -> Target:
    """A number on a scale; the head learns it as a share of the scale."""

    def parse(value: Any) -> tuple[Any, str]:
        try:
            number = float(value)
        except (TypeError, ValueError):
            return None, "no score" if value is None else "score is not a number"
        return number, "" if low <= number <= high else f"score outside family.score_range [{low:g}, {high:g}]"

    def loss(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        import torch.nn.functional as F

        return F.mse_loss(logits, batch["labels"], reduction="sum")

    def decide(logits: torch.Tensor, label_names: Sequence[str]) -> list[Prediction]:
        shares = logits.squeeze(1).clamp(0, 1).cpu().tolist()
        return [{"prediction": low + share * (high - low)} for share in shares]

    def baselines(known: Texts, values: Sequence[Any], asked: Texts, seed: int) -> dict[str, Sequence[Any]]:
        from apf_tasks.families.classification import baselines

        return {
            "mean": [sum(values) / len(values)] * len(asked),
            "tfidf_ridge": baselines.tfidf_ridge(known, values, asked),
        }

    return Target(
        column="score",
        what="its score",
        metrics=("spearman", "pearson", "mae", "mse"),
        lower_is_better=frozenset({"mae", "mse"}),
        parse=parse,
        encode=lambda value, number: [(value - low) / (high - low)],
        outputs=lambda names: {"num_labels": 1, "problem_type": "regression"},
        loss=loss,
        decide=decide,
        statistics=_score_statistics,
        scores=_score_scores,
        baselines=baselines,
        output_columns={"prediction": "double"},
    )


# The metrics are imported when they are asked for: `apf check` builds a family, and answers at once.


def _label_statistics(references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    from apf_tasks.evaluation.metrics.classification import confusion_statistics

    return confusion_statistics(references, predictions, names)


def _label_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    from apf_tasks.evaluation.metrics.classification import classification_scores

    return classification_scores(sums)


def _labels_statistics(references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    from apf_tasks.evaluation.metrics.multilabel import multilabel_statistics

    return multilabel_statistics(references, predictions, names)


def _labels_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    from apf_tasks.evaluation.metrics.multilabel import multilabel_scores

    return multilabel_scores(sums)


def _score_statistics(references: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    from apf_tasks.evaluation.metrics.regression import regression_statistics

    return regression_statistics(references, predictions)


def _score_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    from apf_tasks.evaluation.metrics.regression import regression_scores

    return regression_scores(sums)
