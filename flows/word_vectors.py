"""Word vectors: text in, a probed and registered table of word vectors out."""

from __future__ import annotations

from typing import Any

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.params.file import origin
from apf_tasks.pipelines import word_vector_pipeline
from apf_tasks.planning.plan import forget, log_plan, plan_stages
from apf_tasks.runs.experiments import load_word_vectors
from apf_tasks.runs.recorded import recorded
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402

from flows.orchestration.context import on_prefect  # noqa: E402


@flow(name="word-vectors", flow_run_name="{params}")
def word_vectors(
    params: str, overrides: dict[str, Any] | None = None, refresh: bool = False, dry_run: bool = False
) -> RegisteredModel | None:
    """Train word vectors on a text, ask them for near words and analogies, register them.

    `params` names a file in params/ or a path; `overrides` are dotted, such as {"vectors.dimensions": 50}. With
    `dry_run` the plan is logged and nothing runs; with `refresh` every stage runs, known or not.
    """
    experiment = load_word_vectors(params, overrides)
    if dry_run:
        log_plan(plan_stages(experiment, word_vector_pipeline))
        return None
    if refresh:
        forget(plan_stages(experiment, word_vector_pipeline))
    with on_prefect():
        return recorded(experiment, word_vector_pipeline, params_file=origin(params))
