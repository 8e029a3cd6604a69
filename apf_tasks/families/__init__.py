"""A family is a kind of language problem: one module here, one record of functions, found by its name.

A family module defines `FAMILY = Family(...)`. Nothing else has to know it. Modules whose name starts with an
underscore are shared parts. torch and transformers are imported inside functions: `apf check` needs this package.

Shapes: N rows, K statistics, B examples of a micro batch, T tokens.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.errors import ParamsError
from apf_tasks.params import FamilyParams, ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORE_INDEX = -100
"""Label of a position that has no target and does not count in the loss."""


@dataclass(frozen=True)
class Family:
    """What makes a kind of problem different from the others; everything else is shared."""

    name: str
    params: type[FamilyParams]
    """The options a user may write under `family:`."""
    columns: Mapping[str, str]
    """Column a row must have -> what it holds, in words for an error message."""
    text_columns: tuple[str, ...]
    """The columns that identify a row: duplicates, near-duplicates and the hash split go by them."""
    label_column: str | None
    """The column of one label per row, or None where labels are not a closed set."""
    metrics: tuple[str, ...]
    """Names of the scores, the one that candidates are compared by first. Higher is better for all."""
    check_rows: Callable[[pd.DataFrame, FamilyParams], pd.Series[str]]
    """(rows, params) -> per row the reason why it is unusable, "" when it is fine. Length N."""
    encode: Callable[[pd.DataFrame, PreTrainedTokenizerBase, FamilyParams, Sequence[str], int], dict[str, list[Any]]]
    """(rows, tokenizer, params, label_names, max_tokens) -> columns of N lists: `input_ids`, `labels`, `truncated`
    (bool), and what else the model's forward takes per token."""
    load_model: Callable[[Path, ModelParams, FamilyParams, Sequence[str]], PreTrainedModel]
    """(model folder, params, family params, label_names) -> the model with the head of this family, in float32."""
    loss: Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor]
    """(model, batch) -> loss summed over the targets of the batch, a scalar with gradient."""
    predict: Callable[[PreTrainedModel, dict[str, torch.Tensor], Sequence[str]], list[dict[str, Any]]]
    """(model, batch, label_names) -> per example at least `prediction`; B dictionaries."""
    reference: Callable[[pd.DataFrame], Sequence[Any]]
    """rows -> the reference of each row, in the same terms as `prediction`. Length N."""
    statistics: Callable[[Sequence[Any], Sequence[Any], Sequence[str]], np.ndarray]
    """(references, predictions, label_names) -> (N, K) per-row counts whose sums determine every score."""
    scores: Callable[[np.ndarray], dict[str, np.ndarray]]
    """Sums of statistics (..., K) -> metric -> (...): so that a bootstrap resample costs one matrix product."""
    baselines: Callable[[pd.DataFrame, pd.DataFrame, int], dict[str, Sequence[Any]]]
    """(train rows, test rows, seed) -> baseline name -> prediction per test row."""
    example: Mapping[str, str]
    """Input of one row for the model's signature."""
    output_columns: Mapping[str, str]
    """Column of the served prediction -> MLflow type."""


def family_names() -> list[str]:
    """All families, found by looking into this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get_family(name: str) -> Family:
    """The family called `name`. Raises ParamsError with the nearest known name."""
    known = family_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise ParamsError("family", "one of " + ", ".join(known), repr(name), hint)
    family: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return family
