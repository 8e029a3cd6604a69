"""What names an experiment -> the experiment: the loaders of `params/file.py`, which here take `runs:/RUN_ID` too.

Each raises ParamsError naming every problem, and RegistryError for a run that cannot be found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apf_tasks.params import file
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import Experiment
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.tracking.past_runs import local_params

Overrides = Mapping[str, Any] | Sequence[str] | None
"""Dotted: `{"train.epochs": 2}`, or `["train.epochs=2"]`."""


def load_experiment(params: str, overrides: Overrides = None) -> Experiment:
    """The experiment, of whichever kind."""
    return file.load_experiment(local_params(params), overrides or ())


def load_params(params: str, overrides: Overrides = None) -> Params:
    """The experiment of a family."""
    return file.load_params(local_params(params), overrides or ())


def load_word_vectors(params: str, overrides: Overrides = None) -> WordVectorParams:
    """The experiment of word vectors."""
    return file.load_word_vectors(local_params(params), overrides or ())
