"""Handles and params that a stage takes as one argument. A stage key has the fields under their own names."""

from __future__ import annotations

from typing import NamedTuple

from apf_tasks.artifacts import Selection, TokenizedSplit
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.search import EvaluationParams
from apf_tasks.params.train import RuntimeParams, TrainParams


class TrainingInputs(NamedTuple):
    """All that decides a training."""

    train: TokenizedSplit
    validation: TokenizedSplit
    model: ModelParams
    family: FamilyParams
    params: TrainParams
    runtime: RuntimeParams
    metric: str
    """The validation metric that decides which weights are kept."""


class EvaluationInputs(NamedTuple):
    """All that decides the evaluation of the chosen model on test."""

    selection: Selection
    train: TokenizedSplit
    """For the baselines, which learn from it."""
    test: TokenizedSplit
    model: ModelParams
    """What training started from."""
    family: FamilyParams
    settings: EvaluationParams
    runtime: RuntimeParams
