"""The main job: from labelled rows to a tested and registered model."""

from __future__ import annotations

from typing import Any

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.params.file import origin
from apf_tasks.pipelines import pipeline
from apf_tasks.planning.plan import forget, log_plan, plan_stages
from apf_tasks.promotion.warm_start import as_tag, pin_aliases, resolve_aliases
from apf_tasks.runs.experiments import load_params
from apf_tasks.runs.recorded import recorded
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402

from flows.orchestration.context import on_prefect  # noqa: E402


@flow(name="fine-tune", flow_run_name="{params}")
def fine_tune(
    params: str, overrides: dict[str, Any] | None = None, refresh: bool = False, dry_run: bool = False
) -> RegisteredModel | None:
    """Fine-tune every parameter of a language model, choose on validation, report once on test.

    `params` names a file in params/ or a path; `overrides` are dotted, such as {"train.learning_rate": 3e-5}. With
    `dry_run` the plan is logged and nothing runs; with `refresh` every stage runs, known or not.
    """
    resolved = resolve_aliases(written := load_params(params, overrides))
    experiment = pin_aliases(written, resolved)
    if dry_run:
        log_plan(plan_stages(experiment, pipeline))
        return None
    if refresh:
        forget(plan_stages(experiment, pipeline))
    with on_prefect():
        return recorded(experiment, pipeline, params_file=origin(params), tags=as_tag(resolved))
