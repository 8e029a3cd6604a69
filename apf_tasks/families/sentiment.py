"""Sentiment: one label for a text. (Any single-label classification of texts is the same problem.)

B examples, T tokens, L labels, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.families import Checked, Columns, Evidence, Family, Prediction, model_inputs
from apf_tasks.params import FamilyParams, ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.pretrained import Base


class SentimentParams(FamilyParams):
    """Options of the sentiment family: none so far."""


PARAMS = SentimentParams


def check(rows: pd.DataFrame) -> Checked:
    """A usable row has a text with something in it and a label."""
    import pandas as pd

    reasons = pd.Series("", index=rows.index, dtype=object)
    reasons[rows["label"].isna()] = "no label"
    reasons[rows["text"].isna()] = "empty text"
    return Checked(rows, reasons)


def encode(rows: pd.DataFrame, base: Base, label_names: Sequence[str]) -> Columns:
    """Token ids of the text, cut at `max_tokens`; the label's number as the one target."""
    number = {label: i for i, label in enumerate(label_names)}
    texts, most = rows["text"].tolist(), base.max_tokens
    encoded = base.tokenizer(texts, truncation=False, verbose=False)
    truncated = [len(ids) > most for ids in encoded["input_ids"]]
    cut = base.tokenizer(texts, truncation=True, max_length=most) if any(truncated) else encoded
    columns: Columns = {name: cut[name] for name in cut if name != "attention_mask"}
    columns["truncated"] = truncated
    # a served row has no label: encoding must not need one
    columns["labels"] = [[number[label]] for label in rows["label"]] if "label" in rows else [[0]] * len(rows)
    return columns


def load_model(folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """The base with a classification head of one output per label."""
    from apf_tasks.pretrained import load_pretrained

    names = dict(enumerate(label_names))
    return load_pretrained(
        folder,
        model,
        "AutoModelForSequenceClassification",
        num_labels=len(names),
        id2label=names,
        label2id={v: k for k, v in names.items()},
        problem_type="single_label_classification",
    )


def loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy summed over the examples."""
    import torch.nn.functional as F

    labels = batch["labels"]  # (B, 1)
    logits = model(**model_inputs(batch)).logits  # (B, L)
    return F.cross_entropy(logits.float(), labels.squeeze(1), reduction="sum")


def predict(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], base: Base, label_names: Sequence[str]
) -> list[Prediction]:
    """The most probable label, and the probability of each."""
    logits = model(**model_inputs(batch)).logits  # (B, L)
    probabilities = logits.float().softmax(-1).cpu().numpy()  # (B, L)
    best = probabilities.argmax(-1)  # (B,)
    return [
        {"prediction": label_names[i], "probability": float(p[i]), "probabilities": [float(x) for x in p]}
        for i, p in zip(best, probabilities, strict=True)
    ]


def reference(rows: pd.DataFrame) -> list[str]:
    """The label of each row."""
    return [str(label) for label in rows["label"]]


def baselines(train: Evidence, test: Evidence, seed: int) -> dict[str, Sequence[Any]]:
    """What costs nothing: the most frequent label, and a linear model over word and character n-grams."""
    from apf_tasks.baselines import majority_label, tfidf_logistic_regression

    known, asked = train.rows, test.rows
    return {
        "majority": majority_label(known["label"], len(asked)),
        "tfidf_logistic_regression": tfidf_logistic_regression(known["text"], known["label"], asked["text"], seed),
    }


def statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> np.ndarray:
    """(N, 3 * L): per label, whether the row is rightly predicted, predicted, referenced as it."""
    from apf_tasks.metrics.classification import confusion_statistics

    return confusion_statistics(references, predictions, label_names)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and macro-averaged precision, recall and F1 from summed counts (..., 3 * L)."""
    from apf_tasks.metrics.classification import classification_scores

    return classification_scores(sums)


def details(
    rows: pd.DataFrame, predictions: Sequence[Prediction], label_names: Sequence[str], out: Path
) -> dict[str, Any]:
    """Precision, recall and F1 of each label; the confusion matrix as a picture."""
    from apf_tasks.metrics.classification import draw_confusion, per_label

    references, found = reference(rows), [p["prediction"] for p in predictions]
    draw_confusion(references, found, label_names, out / "confusion.png")
    return {"per_label": per_label(references, found, label_names)}


def family(params: SentimentParams) -> Family:
    """The sentiment family."""
    return Family(
        name="sentiment",
        columns={"text": "the text to judge", "label": "its label"},
        text_columns=("text",),
        label_column="label",
        metrics=("accuracy", "macro_f1", "macro_precision", "macro_recall"),
        check=check,
        encode=encode,
        load_model=load_model,
        loss=loss,
        predict=predict,
        reference=reference,
        statistics=statistics,
        scores=scores,
        baselines=baselines,
        details=details,
        example={"text": "A quiet film that stays with you."},
        output_columns={"prediction": "string", "probability": "double"},
    )
