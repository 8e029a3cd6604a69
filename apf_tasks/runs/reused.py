"""A run whose every stage is reused: its outcome from the store at once, its MLflow run by a later command.

`mlruns/outbox/TOKEN.json` has all that the MLflow run is to say, as it was when the run was made. It is delivered by
the next run that computes something, and by what looks at runs: `apf compare`, `rerun`, `retrain`, `reconcile`, `ui`
and `up`. Once: the token is a tag of the MLflow run.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from apf_tasks import stages
from apf_tasks.artifacts import Artifact, RegisteredModel, TokenizedSplit
from apf_tasks.cache import history, store
from apf_tasks.cache.journal import PipelineRun, StageRun
from apf_tasks.errors import ApfError
from apf_tasks.params._yaml import params_yaml
from apf_tasks.params.base import Frozen
from apf_tasks.params.file import Experiment, load_experiment
from apf_tasks.planning.plan import plan_run
from apf_tasks.runs.record import record, test_opened
from apf_tasks.tracking import outbox, run_logger, tracker
from apf_tasks.tracking._owner import owner_tags
from apf_tasks.tracking.lookup import version_is_there
from apf_tasks.tracking.provenance import PARAMS, PROVENANCE, provenance
from apf_tasks.word_vectors import stages as word_vector_stages

E = TypeVar("E", bound=Experiment)

logger = logging.getLogger("apf")


class ReusedStage(Frozen):
    """A stage of the run."""

    stage: str
    label: str
    handle: dict[str, Any]


class PendingRun(Frozen):
    """All that the MLflow run of a reused run is to say."""

    token: str
    params: str
    """The text of `params.yaml`."""
    provenance: str
    tags: dict[str, str]
    stages: tuple[ReusedStage, ...]
    trials: list[dict[str, Any]]
    test_opened: int
    started_ms: int
    ended_ms: int


def reuse(
    experiment: E, lines: Callable[[E], Any], params_file: str = "", tags: Mapping[str, str] | None = None
) -> PipelineRun | None:
    """What `stored_run` gives; its MLflow run is in the outbox then. Raises StoreError."""
    started_ms = outbox.now_ms()
    if (done := stored_run(experiment, lines)) is not None:
        record_later(experiment, done, started_ms, params_file, tags or {})
    return done


def stored_run(experiment: E, lines: Callable[[E], Any]) -> PipelineRun | None:
    """What the lines of a pipeline give when everything is stored, and the registry has what was registered.

    None when something is to be computed, or MLflow's client has to be asked: then the pipeline is run.
    """
    try:
        with _silence():
            done = plan_run(experiment, lines)
    except ApfError:
        return None  # the run will say it, and record it
    return done if all(map(_is_stored, done.stage_runs)) else None


def _is_stored(stage_run: StageRun) -> bool:
    handle = stage_run.handle
    if stage_run.status != "reused" or handle is None:
        return False
    return not isinstance(handle, RegisteredModel) or bool(version_is_there(handle.name, handle.version))


@contextmanager
def _silence() -> Iterator[None]:
    """What is said within the block is said again by the run that follows."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def record_later(
    experiment: Experiment, done: PipelineRun, started_ms: int, params_file: str, tags: Mapping[str, str]
) -> Path:
    """Put the MLflow run of a reused run into the outbox. Raises StoreError."""
    with history.within_experiment(experiment.name):
        for stage_run in done.stage_runs:
            _note(stage_run)
    tests = [v.handle for v in done.stage_runs if isinstance(v.handle, TokenizedSplit) and v.handle.name == "test"]
    pending = PendingRun(
        token=uuid.uuid4().hex,
        params=params_yaml(experiment),
        provenance=provenance(params_file, done.stage_runs).model_dump_json(indent=1),
        tags=owner_tags() | {"apf.params_file": params_file, **tags},
        stages=tuple(_reused_stage(stage_run) for stage_run in done.stage_runs),
        trials=done.trials,
        test_opened=test_opened(tests[-1]) if tests else 0,
        started_ms=started_ms,
        ended_ms=outbox.now_ms(),
    )
    path = outbox.folder() / f"{pending.token}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".partial")
        written.write_text(pending.model_dump_json(indent=1), encoding="utf-8")
        written.rename(path)
    except OSError as error:
        raise store.store_error(error, "outbox") from error
    return path


def _note(stage_run: StageRun) -> None:
    """What is said, and written into the history, of any call that is reused."""
    assert stage_run.handle is not None
    if (found := store.read_record(stage_run.stage, stage_run.handle.path.name)) is not None:
        history.note(found)
    title = f"{stage_run.stage} {stage_run.label}".strip()
    logger.info("%-10s reused: %s", title, stage_run.handle.describe())


def _reused_stage(stage_run: StageRun) -> ReusedStage:
    assert stage_run.handle is not None
    return ReusedStage(stage=stage_run.stage, label=stage_run.label, handle=stage_run.handle.model_dump(mode="json"))


def deliver_outbox() -> dict[str, bool]:
    """Deliver all that waits, so that the tracker has every run that ended. Run, or token -> whether it is there."""
    return outbox.deliver_leftovers() | deliver_runs()


def deliver_runs() -> dict[str, bool]:
    """Make the MLflow runs that are in the outbox. Token, or run -> whether the tracker has it now."""
    found: dict[str, bool] = {}
    for path in sorted(outbox.folder().glob("*.json")):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue  # delivered by another process
        with file:
            if not outbox.take_file(file):
                continue
            try:
                found[_delivered(PendingRun.model_validate_json(file.read()))] = True
                path.unlink(missing_ok=True)
            except Exception as error:  # the command that delivers has work of its own
                said = str(error).splitlines()[0][:200]
                logger.warning("           a reused run stays in the outbox, %s: %s", path.name, said)
                found[path.stem] = False
    return found


def _delivered(pending: PendingRun) -> str:
    """The id of the run, made unless an earlier delivery came to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, PARAMS)
        file.write_text(pending.params, encoding="utf-8")
        experiment = load_experiment(file)
    place = tracker.experiment_id(experiment.name)
    if (earlier := tracker.run_of_token(place, pending.token)) is not None:
        if earlier.info.status == "FINISHED":
            return str(earlier.info.run_id)
        tracker.client().delete_run(earlier.info.run_id)  # cut short
    mine = owner_tags()  # while it is under way: a run whose owner has died is closed
    run_id = tracker.new_run(
        experiment.name,
        f"{experiment.name} pipeline",
        mine | {"apf.kind": "pipeline"},
        pending.token,
        pending.started_ms,
    )
    run_logger.log_params(run_id, run_logger.flat_params(experiment))
    run_logger.log_text(run_id, pending.params, PARAMS)
    run_logger.log_text(run_id, pending.provenance, PROVENANCE)
    done = PipelineRun(run_id=run_id, trials=pending.trials, test_opened=pending.test_opened)
    done.stage_runs = [StageRun(s.stage, s.label, "reused", "", 0.0, _handle(s)) for s in pending.stages]
    record(run_id, experiment, done)
    tracker.end_run(run_id, "FINISHED", pending.ended_ms, pending.tags)
    return run_id


def _handle(reused: ReusedStage) -> Artifact:
    module = stages if hasattr(stages, reused.stage) else word_vector_stages
    kind: type[Artifact] = getattr(module, reused.stage).returns
    return kind.model_validate(reused.handle)
