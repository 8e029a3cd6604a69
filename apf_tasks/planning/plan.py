"""What a flow would do, for its parameters `dry_run` and `refresh`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.history import within_experiment
from apf_tasks.cache.journal import PipelineRun, StageRun, journal
from apf_tasks.params.file import Experiment

E = TypeVar("E", bound=Experiment)

logger = logging.getLogger("apf")


def plan_run(experiment: E, lines: Callable[[E], Artifact], prepare: bool = False) -> PipelineRun:
    """What a pipeline would do now, with the stored results. Runs nothing; with `prepare`, the preparing stages."""
    with journal(dry=True, prepare=prepare) as plan, within_experiment(experiment.name):
        lines(experiment)
    return plan


def plan_stages(experiment: E, lines: Callable[[E], Artifact]) -> list[StageRun]:
    """The stage calls of a pipeline as they stand: `reused` or `runs`. Runs nothing."""
    return plan_run(experiment, lines).stage_runs


def log_plan(stage_runs: Sequence[StageRun]) -> None:
    """Log the plan."""
    for stage_run in stage_runs:
        title = f"{stage_run.stage} {stage_run.label}".strip()
        logger.info(
            "plan       %s: %s", title, "reused" if stage_run.status == "reused" else f"runs, {stage_run.reason}"
        )


def forget(stage_runs: Sequence[StageRun]) -> None:
    """Have every stage of the plan run again: what is stored is taken away. Versions in the registry stay."""
    for stage_run in stage_runs:
        if stage_run.handle is not None:
            store.evict(stage_run.stage, stage_run.handle.path.name)
