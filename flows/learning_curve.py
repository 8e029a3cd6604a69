"""A learning curve: the gain to expect from more labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apf_tasks.artifacts import LearningCurve
from apf_tasks.params.file import origin
from apf_tasks.pipelines import FRACTIONS, curve_pipeline
from apf_tasks.runs.experiments import load_params
from apf_tasks.runs.recorded import recorded
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402

from flows.orchestration.context import on_prefect  # noqa: E402


@flow(name="learning-curve", flow_run_name="{params}")
def learning_curve(
    params: str, overrides: dict[str, Any] | None = None, fractions: Sequence[float] = FRACTIONS
) -> LearningCurve:
    """Train on growing parts of the train split, score each on validation, extrapolate to twice the rows.

    `params` and `overrides` as in fine_tune; `fractions` ascend, above 0 and up to 1.
    """
    experiment = load_params(params, overrides)
    with on_prefect():
        return recorded(experiment, lambda found: curve_pipeline(found, tuple(fractions)), origin(params), "curve")
