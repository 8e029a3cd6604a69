"""What a family is: the record of functions in which one kind of language problem differs from the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from apf_tasks.examples import Columns
from apf_tasks.params.family import FamilyParams, family_record
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.examples import Examples
    from apf_tasks.models.pretrained import BaseModelInfo


MODEL_INPUTS = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "position_ids", "decoder_input_ids", "decoder_attention_mask"}
)


Prediction = dict[str, Any]
"""What is predicted for a row: `prediction`, in the terms of the reference, and whatever belongs to it."""


ExamplePredictions = Sequence[Sequence[Prediction]]
"""Per row, what was predicted for each of its examples, in their order."""


Predict = Callable[["PreTrainedModel", dict[str, "torch.Tensor"], "BaseModelInfo", Sequence[str]], list[Prediction]]
"""(model, batch without `labels`, base, label_names) -> what is predicted per example; B dictionaries."""


Thresholds = Mapping[str, float]
"""Numbers of a decision that were chosen on validation, such as a threshold."""


class CheckedRows(NamedTuple):
    """Rows after a family has checked them."""

    rows: pd.DataFrame
    """With the canonical columns."""
    reasons: pd.Series[str]
    """Per row why it is unusable, "" when it is fine."""
    notes: dict[str, int] = {}  # noqa: RUF012  # a NamedTuple's default is never written to
    """What was repaired, and how often."""


class BaselineInputs(NamedTuple):
    """What a baseline may use: the rows of a split and their tokens."""

    rows: pd.DataFrame
    examples: Examples


def first_piece(
    rows: pd.DataFrame, pieces: ExamplePredictions, base: BaseModelInfo, settings: Thresholds
) -> list[Prediction]:
    """The prediction of a row that is one example."""
    return [piece[0] for piece in pieces]


@dataclass(frozen=True)
class Family:
    """What makes a kind of problem different from the others; everything else is shared."""

    name: str
    columns: Mapping[str, str]
    """Column of a checked row -> what it holds, in words for an error message."""
    text_columns: tuple[str, ...]
    """Texts that may not be in two splits: the hash split and near-duplicates are based on them."""
    metrics: tuple[str, ...]
    """Names of the scores, the one that candidates are compared by first."""
    check: Callable[[pd.DataFrame], CheckedRows]
    """Rows as read (scalars are text or None) -> rows with the canonical columns, and what is wrong with each."""
    encode: Callable[[pd.DataFrame, BaseModelInfo, Sequence[str]], Columns]
    """(rows, base, label_names) -> `input_ids`, `labels`, `truncated` (bool), what else forward or predict takes per
    token, and `row` (position in `rows`) when rows give several examples. Served rows have no reference."""
    load_model: Callable[[Path, ModelParams, Sequence[str]], PreTrainedModel]
    """(model folder, params, label_names) -> the model with the head of this family, in float32."""
    loss: Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor]
    """(model, batch) -> loss summed over the targets of the batch, a scalar with gradient."""
    predict: Predict
    """What the scores are made of."""
    reference: Callable[[pd.DataFrame], Sequence[Any]]
    """Rows -> the reference of each, in the terms of `prediction`. Length N."""
    statistics: Callable[[Sequence[Any], Sequence[Any], Sequence[str]], np.ndarray]
    """(references, predictions, label_names) -> (N, K) per-row counts whose sums determine every score."""
    scores: Callable[[np.ndarray], dict[str, np.ndarray]]
    """Sums of statistics (..., K) -> metric -> (...): so that a bootstrap resample costs one matrix product."""
    baselines: Callable[[BaselineInputs, BaselineInputs, int], dict[str, Sequence[Any]]]
    """(train, test, seed) -> baseline name -> prediction per test row."""
    example: Mapping[str, str]
    """Input of one row for the model's signature; all served inputs are text."""
    output_columns: Mapping[str, str]
    """Key of a prediction -> MLflow type of that column of the served answer."""
    alternatives: tuple[Mapping[str, str], ...] = ()
    """Other sets of columns that `check` makes the canonical ones of."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Optional columns that are kept when the source has them."""
    tells_unused: bool = False
    """Whether the columns of a source that nothing is made of are named when it is read."""
    key_columns: tuple[str, ...] = ()
    """What makes two rows the same row; the text columns when empty."""
    tokenizer_columns: tuple[str, ...] = ()
    """The texts that a tokenizer of a model from scratch is trained on; the key columns when empty."""
    label_column: str | None = None
    """The column of one label per row, or None where a row has none, or several."""
    labels: Callable[[pd.DataFrame], list[list[str]]] | None = None
    """Rows -> the labels that each carries; from `label_column` when None."""
    leave_label_out: str = "leave it out of data.labels"
    """What to do about a label that train does not have, if there are no rows to add."""
    merge: Callable[[pd.DataFrame, ExamplePredictions, BaseModelInfo, Thresholds], list[Prediction]] = first_piece
    """(rows, pieces, base, settings) -> the prediction of each row."""
    lower_is_better: frozenset[str] = frozenset()
    """Metrics whose best value is the smallest."""
    per_token: frozenset[str] = frozenset()
    """Metrics that count the model's own tokens: they compare nothing across tokenizers."""
    mask: Callable[[Columns, BaseModelInfo, Sequence[int]], Columns] | None = None
    """(columns of some examples, base, seeds) -> the same examples as one epoch sees them, `labels` among them. The
    seeds and the example decide; no seeds give the fixed view of an evaluation."""
    tune: Callable[[Sequence[Any], Sequence[Prediction]], dict[str, float]] | None = None
    """(references, predictions) of the validation split -> the settings for `merge`."""
    constants: Callable[[pd.DataFrame, Sequence[str]], dict[str, torch.Tensor]] | None = None
    """(train rows, label_names) -> tensors that every training batch carries, such as class weights."""
    needs_labels: bool = False
    """Whether `predict` gets the labels: the score of a language model is how well it predicts them."""
    answer: Predict | None = None
    """`predict` with what the test report and a served answer have beside the scores; the same where None. Validations
    during training do without."""
    generates: bool = False
    """Whether `prediction` is text that the model writes token by token."""
    details: Callable[[pd.DataFrame, Sequence[Prediction], Sequence[str], Path], dict[str, Any]] | None = None
    """(rows, predictions, label_names, folder) -> more for the test report; pictures go into the folder."""

    def sign(self, metric: str) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if metric in self.lower_is_better else 1

    def labels_of(self, rows: pd.DataFrame) -> list[list[str]]:
        """The labels that each row carries."""
        if self.labels is not None:
            return self.labels(rows)
        return [[str(label)] for label in rows[self.label_column]] if self.label_column else [[]] * len(rows)


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of a batch the model's forward takes."""
    return {name: tensor for name, tensor in batch.items() if name in MODEL_INPUTS}


def get_family(params: FamilyParams) -> Family:
    """The family for these options. Raises ParamsError where a module of one's own makes something else."""
    family: Family = family_record(params)
    return family
