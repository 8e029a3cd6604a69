"""Sentiment: one label for a text. (Any single-label classification of texts is the same problem.)

B examples, T tokens, L labels, N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.families import Family
from apf_tasks.params import FamilyParams, ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SentimentParams(FamilyParams):
    """Options of the sentiment family: none so far."""


def check_rows(rows: pd.DataFrame, params: FamilyParams) -> pd.Series[str]:
    """A usable row has a text with something in it and a label."""
    import pandas as pd

    reason = pd.Series("", index=rows.index, dtype=object)
    reason[rows["label"].isna() | (rows["label"].astype(str).str.strip() == "")] = "no label"
    reason[rows["text"].isna() | (rows["text"].astype(str).str.strip() == "")] = "empty text"
    return reason


def encode(
    rows: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    params: FamilyParams,
    label_names: Sequence[str],
    max_tokens: int,
) -> dict[str, list[Any]]:
    """Token ids of the text, cut at `max_tokens`; the label's number as the one target."""
    number = {label: i for i, label in enumerate(label_names)}
    encoded = tokenizer(rows["text"].tolist(), truncation=False, verbose=False)
    cut = (
        tokenizer(rows["text"].tolist(), truncation=True, max_length=max_tokens)
        if any(len(ids) > max_tokens for ids in encoded["input_ids"])
        else encoded
    )
    columns: dict[str, list[Any]] = {name: cut[name] for name in cut if name != "attention_mask"}
    columns["truncated"] = [len(ids) > max_tokens for ids in encoded["input_ids"]]
    # a served row has no label: encoding must not need one
    columns["labels"] = [[number[label]] for label in rows["label"]] if "label" in rows else [[0]] * len(rows)
    return columns


def load_model(folder: Path, model: ModelParams, params: FamilyParams, label_names: Sequence[str]) -> PreTrainedModel:
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
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits  # (B, L)
    return F.cross_entropy(logits.float(), labels.squeeze(1), reduction="sum")


def predict(model: PreTrainedModel, batch: dict[str, torch.Tensor], label_names: Sequence[str]) -> list[dict[str, Any]]:
    """The most probable label, and the probability of each."""
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits  # (B, L)
    probabilities = logits.float().softmax(-1).cpu().numpy()  # (B, L)
    best = probabilities.argmax(-1)  # (B,)
    return [
        {"prediction": label_names[i], "probability": float(p[i]), "probabilities": [float(x) for x in p]}
        for i, p in zip(best, probabilities, strict=True)
    ]


def reference(rows: pd.DataFrame) -> list[str]:
    """The label of each row."""
    return [str(label) for label in rows["label"]]


def baselines(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, Sequence[Any]]:
    """What costs nothing: the most frequent label, and a linear model over word and character n-grams."""
    from apf_tasks.baselines import majority_label, tfidf_logistic_regression

    return {
        "majority": majority_label(train["label"], len(test)),
        "tfidf_logistic_regression": tfidf_logistic_regression(train["text"], train["label"], test["text"], seed),
    }


def statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> np.ndarray:
    """(N, 3 * L): per label, whether the row is rightly predicted, predicted, referenced as it."""
    from apf_tasks.metrics import confusion_statistics

    return confusion_statistics(references, predictions, label_names)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy and macro-averaged precision, recall and F1 from summed counts (..., 3 * L)."""
    from apf_tasks.metrics import classification_scores

    return classification_scores(sums)


FAMILY = Family(
    name="sentiment",
    params=SentimentParams,
    columns={"text": "the text to judge", "label": "its label"},
    text_columns=("text",),
    label_column="label",
    metrics=("accuracy", "macro_f1", "macro_precision", "macro_recall"),
    check_rows=check_rows,
    encode=encode,
    load_model=load_model,
    loss=loss,
    predict=predict,
    reference=reference,
    statistics=statistics,
    scores=scores,
    baselines=baselines,
    example={"text": "A quiet film that stays with you."},
    output_columns={"prediction": "string", "probability": "double"},
)
