"""Running the lines of a pipeline in one MLflow run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from apf_tasks.cache.journal import journal
from apf_tasks.params._yaml import params_yaml
from apf_tasks.params.file import Experiment
from apf_tasks.runs.record import record
from apf_tasks.runs.reused import deliver_runs
from apf_tasks.tracking import run_logger
from apf_tasks.tracking.provenance import PARAMS, PROVENANCE, provenance

E = TypeVar("E", bound=Experiment)
R = TypeVar("R")


def recorded(
    experiment: E,
    lines: Callable[[E], R],
    params_file: str = "",
    kind: str = "pipeline",
    tags: Mapping[str, str] | None = None,
) -> R:
    """Run the lines of a pipeline in one MLflow run; what its stages did is written there, however it ends.

    With all params and the provenance of every stage, so that the run can be repeated from its record alone.
    """
    deliver_runs()
    with run_logger.pipeline_run(experiment, kind) as run_id, journal() as done:
        done.run_id = run_id
        run_logger.set_tags(run_id, {"apf.params_file": params_file, **(tags or {})})
        run_logger.log_text(run_id, params_yaml(experiment), PARAMS)

        def write_all() -> None:
            run_logger.log_text(run_id, provenance(params_file, done.stage_runs).model_dump_json(indent=1), PROVENANCE)
            record(run_id, experiment, done)

        try:
            result = lines(experiment)
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what the person needs to see
                write_all()
            raise
        write_all()
        return result
