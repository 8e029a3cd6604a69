"""Pipeline runs as MLflow has them: found by id, by the start of an id, or by a model that they registered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from apf_tasks.errors import RegistryError
from apf_tasks.params.file import RUNS, Experiment, load_experiment
from apf_tasks.tracking import tracker
from apf_tasks.tracking.provenance import PARAMS, PROVENANCE, Provenance
from apf_tasks.tracking.registry import REGISTRY

if TYPE_CHECKING:
    from mlflow.entities import Run

PREDICTIONS = "test/predictions.parquet"
SHORT = 8
"""Characters of a run id that people are shown."""


class ValidationPoint(NamedTuple):
    """One validation of a training."""

    step: int
    epoch: float
    score: float


@dataclass(frozen=True)
class PastRun:
    """A pipeline run as it was recorded."""

    run_id: str
    started: datetime
    """In local time."""
    status: str
    """MLflow's: FINISHED, FAILED, KILLED, RUNNING."""
    params: Experiment
    provenance: Provenance
    metrics: dict[str, float]
    flat: dict[str, str]
    """The params under their dotted names, as text."""
    chosen_run: str | None
    """The run of the trial that selection chose."""

    @property
    def short(self) -> str:
        """The start of its id."""
        return self.run_id[:SHORT]


def past_run(name: str) -> PastRun:
    """The pipeline run called by its id, the start of it, `runs:/ID` or `models:/…`. Raises RegistryError."""
    run = _find(name)
    run_id = str(run.info.run_id)
    params = load_experiment(artifact(run_id, PARAMS))
    path = artifact(run_id, PROVENANCE)
    try:
        facts = Provenance.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise _not_whole(run_id, PROVENANCE, "it cannot be read") from error
    return PastRun(
        run_id=run_id,
        started=datetime.fromtimestamp(run.info.start_time / 1000),
        status=str(run.info.status),
        params=params,
        provenance=facts,
        metrics=dict(run.data.metrics),
        flat=dict(run.data.params),
        chosen_run=run.data.tags.get("apf.chosen_run"),
    )


def local_params(params: str) -> str:
    """What names a params file on this machine: `params` itself, or a copy of what the run `runs:/RUN_ID` recorded."""
    return str(recorded_params(params)) if params.startswith(RUNS) else params


def recorded_params(address: str) -> Path:
    """The params file that a run recorded; `address` is `runs:/RUN_ID`, or that with `/params.yaml`."""
    return artifact(str(_find(address.removesuffix(f"/{PARAMS}")).info.run_id), PARAMS)


def artifact(run_id: str, name: str) -> Path:
    """A local copy of one file that the run recorded. Raises RegistryError when it is not there any more."""
    from mlflow.exceptions import MlflowException

    try:
        path = Path(tracker.client().download_artifacts(run_id, name))
    except (MlflowException, OSError) as error:
        raise _not_whole(run_id, name, str(error).partition("\n")[0][:200]) from error
    if not path.is_file():
        raise _not_whole(run_id, name, "no such file")
    return path


def _not_whole(run_id: str, name: str, found: str) -> RegistryError:
    do = "The run did not get that far, or its files were deleted: run its params file again."
    return RegistryError(f"run {run_id[:SHORT]}", f"the artifact {name}", found, do)


def metrics_of(run_id: str) -> dict[str, float]:
    """The final numbers of a run."""
    return dict(tracker.client().get_run(run_id).data.metrics)


def validation_curve(trial_run: str | None, metric: str) -> tuple[ValidationPoint, ...]:
    """All validations of a trial in their order; empty when the tracking store does not know it."""
    from mlflow.exceptions import MlflowException

    if trial_run is None:
        return ()
    try:
        scores = tracker.client().get_metric_history(trial_run, f"validation/{metric}")
        epochs = {m.step: m.value for m in tracker.client().get_metric_history(trial_run, "train/epoch")}
    except MlflowException:
        return ()
    points = {m.step: ValidationPoint(m.step, epochs.get(m.step, float("nan")), m.value) for m in scores}
    return tuple(points[step] for step in sorted(points))


def _find(name: str) -> Run:
    """The pipeline run that a person means. Raises RegistryError when there is none, or more than one."""
    if name.startswith(REGISTRY):
        from apf_tasks.tracking.registry import find_version

        return tracker.client().get_run(find_version(name).run_id)
    start = name.removeprefix(RUNS).lower()
    if not re.fullmatch("[0-9a-f]{1,32}", start):
        do = "`apf ui` lists the runs; `models:/NAME@ALIAS` means the run that registered the model."
        raise RegistryError("run", "a run id, a prefix of one, or models:/NAME@ALIAS", repr(name), do)
    found = _runs_starting_with(start)
    pipelines = [run for run in found if run.data.tags.get("apf.kind") == "pipeline"]
    if len(pipelines) == 1:
        return pipelines[0]
    raise RegistryError(f"run {name}", "one pipeline run", *_instead(found, pipelines))


def _runs_starting_with(start: str) -> list[Run]:
    wanted = f"attributes.run_id LIKE '{start}%'"
    return list(tracker.client().search_runs(tracker.experiment_ids(), wanted, max_results=50))


def _instead(found: Sequence[Run], pipelines: Sequence[Run]) -> tuple[str, str]:
    """What was found instead of one pipeline run, and what to do."""
    if pipelines:
        return ", ".join(str(run.info.run_id) for run in pipelines[:4]), "Give more characters of the id."
    if found and (parent := found[0].data.tags.get("mlflow.parentRunId")):
        return f"the trial {found[0].info.run_id}", f"It belongs to the pipeline run {parent}."
    return "none", f"`apf ui` lists the runs of {tracker.tracking_uri()}."
