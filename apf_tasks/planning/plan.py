"""What a flow would do, for its parameters `dry_run` and `refresh`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.history import of_experiment
from apf_tasks.cache.journal import Visit, journal
from apf_tasks.params.file import Experiment

E = TypeVar("E", bound=Experiment)

logger = logging.getLogger("apf")


def planned(experiment: E, lines: Callable[[E], Artifact]) -> list[Visit]:
    """The stage calls of a pipeline as they stand: `reused` or `runs`. Runs nothing."""
    with journal(dry=True) as plan, of_experiment(experiment.name):
        lines(experiment)
    return plan.visits


def say(visits: Sequence[Visit]) -> None:
    """Log the plan."""
    for visit in visits:
        title = f"{visit.stage} {visit.label}".strip()
        logger.info("plan       %s: %s", title, "reused" if visit.status == "reused" else f"runs, {visit.reason}")


def forget(visits: Sequence[Visit]) -> None:
    """Have every stage of the plan run again: what is stored is taken away. Versions in the registry stay."""
    for visit in visits:
        if visit.handle is not None:
            store.forget(visit.stage, visit.handle.path.name)
