"""What a flow hands down to the stages and the search that it calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apf_tasks.cache.stage import use_stage_runner
from apf_tasks.search.executor import use_executor
from flows.orchestration.task import run_as_task
from flows.orchestration.workers import WorkerExecutor


@contextmanager
def on_prefect() -> Iterator[None]:
    """Within the block stages run as Prefect tasks, and parallel trials in the workers of a Prefect task runner."""
    with use_stage_runner(run_as_task), use_executor(WorkerExecutor):
        yield
