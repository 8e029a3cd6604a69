"""Sentiment: classification or rating of a text, or of a pair of texts, of any kind.

The target is one label, any number of labels, or a score on a scale. B examples, T tokens, L labels, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from apf_tasks.examples import Columns
from apf_tasks.families.classification.targets import Target, one_label, score, several_labels
from apf_tasks.family import (
    BaselineInputs,
    CheckedRows,
    ExamplePredictions,
    Family,
    Prediction,
    Thresholds,
    model_inputs,
)
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.models.pretrained import BaseModelInfo


class SentimentParams(FamilyParams):
    """One label, several labels, or a score for a text or a pair of texts."""

    target: Literal["label", "labels", "score"] = "label"
    """`label`: one of a closed set. `labels`: any number of them. `score`: a number (regression)."""
    pairs: bool = False
    """Whether a row has a second text, in the column `text_pair`."""
    separator: str = ","
    """Separator of several labels that are written as one text."""
    score_range: tuple[float, float] | None = None
    """Lowest and highest score; needed with `target: score`. Rows outside are rejected."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of a label in the loss: equal, in inverse proportion to its train rows, or as written."""

    @model_validator(mode="after")
    def _fitting(self) -> SentimentParams:
        if (self.target == "score") != (self.score_range is not None):
            raise ValueError("`score_range: [low, high]` and `target: score` require each other")
        if self.score_range is not None and self.score_range[0] >= self.score_range[1]:
            raise ValueError(f"score_range runs from {self.score_range[0]} to {self.score_range[1]}")
        if self.class_weights != "none" and self.target != "label":
            raise ValueError("class_weights require `target: label`")
        return self


PARAMS = SentimentParams


def check(target: Target, text_columns: Sequence[str], rows: pd.DataFrame) -> CheckedRows:
    """A usable row has something in every text, and a target."""
    import pandas as pd

    scored = [target.parse(value) for value in rows[target.column]]
    reasons = pd.Series([reason for _, reason in scored], index=rows.index, dtype=object)
    for column in text_columns:
        reasons[rows[column].isna()] = f"empty {column}"
    values = pd.Series([value for value, _ in scored], index=rows.index, dtype=object)
    return CheckedRows(rows.assign(**{target.column: values}), reasons)


def encode(
    target: Target, text_columns: Sequence[str], rows: pd.DataFrame, base: BaseModelInfo, label_names: Sequence[str]
) -> Columns:
    """Token ids of the text, or of both with the longer one cut first; the targets of the row."""
    texts = [rows[column].tolist() for column in text_columns]
    encoded = base.tokenizer(*texts, truncation=False, verbose=False)
    truncated = [len(ids) > base.max_tokens for ids in encoded["input_ids"]]
    if any(truncated):
        encoded = base.tokenizer(*texts, truncation="longest_first", max_length=base.max_tokens)
    columns: Columns = {name: encoded[name] for name in encoded if name != "attention_mask"}
    columns["truncated"] = truncated
    number = {label: i for i, label in enumerate(label_names)}
    served = target.column not in rows  # a served row has no target
    columns["labels"] = [[0]] * len(rows) if served else [target.encode(v, number) for v in rows[target.column]]
    return columns


def load_model(target: Target, folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """The base with a head for the target."""
    from apf_tasks.models.pretrained import load_pretrained

    return load_pretrained(folder, model, "AutoModelForSequenceClassification", **target.outputs(label_names))


def loss(target: Target, model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The target's loss summed over the examples."""
    return target.loss(model(**model_inputs(batch)).logits.float(), batch)


def predict(
    target: Target,
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    base: BaseModelInfo,
    label_names: Sequence[str],
) -> list[Prediction]:
    """The target's decision for each example."""
    return target.decide(model(**model_inputs(batch)).logits.float(), label_names)


def merge(
    target: Target, rows: pd.DataFrame, pieces: ExamplePredictions, base: BaseModelInfo, settings: Thresholds
) -> list[Prediction]:
    """A row is one example; its labels are decided by the threshold of validation where there is one."""
    found = [piece[0] for piece in pieces]
    return [target.apply_threshold(p, settings) for p in found] if target.apply_threshold else found


def constants(params: SentimentParams, rows: pd.DataFrame, label_names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The weight of each label, (L,). Balanced: N / (L * rows of the label), as scikit-learn has it."""
    import torch

    from apf_tasks.errors import ParamsError

    if isinstance(params.class_weights, dict):
        if unknown := sorted(set(params.class_weights) ^ set(label_names)):
            expected = "a weight for each of " + ", ".join(label_names)
            raise ParamsError("family.class_weights", expected, f"{', '.join(unknown)} too many or missing", "Mend it.")
        return {
            "class_weights": torch.tensor([params.class_weights[name] for name in label_names], dtype=torch.float32)
        }
    counts = rows["label"].value_counts().reindex(list(label_names), fill_value=1)  # a part of train may lack a label
    weights = [len(rows) / (len(label_names) * counts[name]) for name in label_names]
    return {"class_weights": torch.tensor(weights, dtype=torch.float32)}


def baselines(
    target: Target, text_columns: Sequence[str], train: BaselineInputs, test: BaselineInputs, seed: int
) -> dict[str, Sequence[Any]]:
    """What costs nothing; a pair of texts is one text to it."""
    known, asked = (e.rows[list(text_columns)].agg("\n".join, axis=1).tolist() for e in (train, test))
    return target.baselines(known, train.rows[target.column].tolist(), asked, seed)


def details(
    target: Target, rows: pd.DataFrame, predictions: Sequence[Prediction], label_names: Sequence[str], out: Path
) -> dict[str, Any]:
    """The target's tables and pictures."""
    return target.details(rows[target.column].tolist(), predictions, label_names, out) if target.details else {}


def _target(params: SentimentParams) -> Target:
    if params.target == "score" and params.score_range is not None:
        return score(*params.score_range)
    return several_labels(params.separator) if params.target == "labels" else one_label()


def family(params: SentimentParams) -> Family:
    """The sentiment family."""
    target, labels_of = _target(params), _target(params).labels
    texts: Mapping[str, str] = {"text": "the text to classify"} | (
        {"text_pair": "the second text"} if params.pairs else {}
    )
    example = {"text": "A quiet film that stays with you."}
    return Family(
        name="sentiment",
        columns={**texts, target.column: target.what},
        text_columns=tuple(texts),
        label_column="label" if params.target == "label" else None,
        labels=None if labels_of is None else lambda rows: labels_of(rows[target.column].tolist()),
        metrics=target.metrics,
        lower_is_better=target.lower_is_better,
        check=partial(check, target, tuple(texts)),
        encode=partial(encode, target, tuple(texts)),
        load_model=partial(load_model, target),
        loss=partial(loss, target),
        predict=partial(predict, target),
        merge=partial(merge, target),
        tune=target.tune,
        constants=None if params.class_weights == "none" else partial(constants, params),
        reference=lambda rows: rows[target.column].tolist(),
        statistics=target.statistics,
        scores=target.scores,
        baselines=partial(baselines, target, tuple(texts)),
        details=partial(details, target),
        example=example | ({"text_pair": "The film is slow."} if params.pairs else {}),
        output_columns=target.output_columns,
    )
