"""What a flow hands down to the stages and the search that it calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apf_tasks.cache.stage import stages_run_by
from apf_tasks.search.executor import trials_run_by
from flows.orchestration.task import run_as_task
from flows.orchestration.workers import Workers


@contextmanager
def on_prefect() -> Iterator[None]:
    """Within the block stages run as Prefect tasks, and parallel trials in the workers of a Prefect task runner."""
    with stages_run_by(run_as_task), trials_run_by(Workers):
        yield
