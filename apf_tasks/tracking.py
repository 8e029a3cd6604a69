"""The record in MLflow: one run per pipeline, one child run per trial. Imports mlflow only when something is recorded.

The default store is `mlruns/mlflow.db` with artifacts in `mlruns/artifacts`; MLFLOW_TRACKING_URI overrides it.
The fluent API's run belongs to a thread, so everything here goes by run id.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from apf_tasks import store
from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.frozen import dotted
from apf_tasks.run_owner import owner_tags, still_lives
from apf_tasks.word_vectors.artifacts import Corpus
from apf_tasks.word_vectors.params import Experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger("apf")

FLUSH_SECONDS = 2.0
BATCH = 1000
"""Most metrics that MLflow takes in one call."""
RUN_FILE = "mlflow_run_id"

_ready: set[str] = set()


class Pipeline(NamedTuple):
    """The experiment and the run that a pipeline records in."""

    experiment: str = "apf"
    run_id: str | None = None


_pipeline: ContextVar[Pipeline] = ContextVar("apf_pipeline", default=Pipeline())  # noqa: B039
current_pipeline = _pipeline.get


def tracking_uri() -> str:
    """Where MLflow records."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root() / 'mlflow.db'}"


def registry_uri() -> str:
    """Where models are registered."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or tracking_uri()


def client() -> MlflowClient:
    """A client of the tracking store, which is made under a lock at first use: its migration bears one process."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = tracking_uri()
    if mlflow.get_tracking_uri() != uri:
        said = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(registry_uri())
        for name, value in said.items():  # mlflow writes them into the environment, where only the user's word belongs
            os.environ.pop(name, None)
            os.environ.update({name: value} if value else {})
    found = mlflow.MlflowClient(tracking_uri=uri, registry_uri=registry_uri())
    if uri not in _ready:
        store.root().mkdir(parents=True, exist_ok=True)
        with (store.root() / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found.search_experiments(max_results=1)
        _ready.add(uri)
    return found


def experiment_id(name: str) -> str:
    """The experiment called `name`, made when it does not exist, with an absolute artifact folder for a local store."""
    tracker = client()
    with (store.root() / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := tracker.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        local = tracking_uri().startswith("sqlite:")
        location = (store.root() / "artifacts" / name).as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # opens the UI on training runs
        return str(tracker.create_experiment(name, artifact_location=location, tags=kind))


@contextmanager
def pipeline_run(params: Experiment, kind: str = "pipeline") -> Iterator[str]:
    """The parent run of one pipeline: params under their dotted names, the outcome as its status."""
    tracker = client()
    experiment = experiment_id(params.name)
    close_dead_runs(experiment)
    run = tracker.create_run(experiment, run_name=f"{params.name} {kind}", tags=owner_tags() | {"apf.kind": kind})
    run_id = str(run.info.run_id)
    try:
        with within(Pipeline(params.name, run_id)):
            log_params(run_id, flat_params(params))
            yield run_id
        tracker.set_terminated(run_id, "FINISHED")
    except BaseException as error:
        tracker.set_tag(run_id, "apf.error", f"{type(error).__name__}: {error}"[:5000])
        tracker.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


@contextmanager
def within(pipeline: Pipeline) -> Iterator[None]:
    """Record as part of a pipeline, be it one that another process runs."""
    token = _pipeline.set(pipeline)
    try:
        yield
    finally:
        _pipeline.reset(token)


def current_run(name: str) -> str:
    """The pipeline's run; outside a pipeline, a finished run of its own under the experiment `name`."""
    if (run_id := _pipeline.get().run_id) is not None:
        return run_id
    run_id = str(client().create_run(experiment_id(name), tags=owner_tags()).info.run_id)
    client().set_terminated(run_id, "FINISHED")
    return run_id


def flat_params(params: Experiment) -> dict[str, Any]:
    """Dotted name -> value, as in the YAML and on the command line."""
    return dict(dotted(params.model_dump(mode="json", by_alias=True, exclude_none=True)))


def log_params(run_id: str, values: Mapping[str, Any]) -> None:
    """Params of a run; those it has already are left alone, for MLflow's params never change."""
    from mlflow.entities import Param

    tracker = client()
    known = tracker.get_run(run_id).data.params
    new = [Param(_legal(k), str(v)[:6000]) for k, v in values.items() if _legal(k) not in known]
    for start in range(0, len(new), 100):
        tracker.log_batch(run_id, params=new[start : start + 100])


def _legal(name: str) -> str:
    """MLflow takes letters, digits and _-./: and space in names."""
    return "".join(c if c.isalnum() or c in "_-./: " else "_" for c in name)


def close_dead_runs(experiment: str) -> list[str]:
    """Runs that this machine left RUNNING when their process died become KILLED. Returns their ids."""
    tracker = client()
    mine = f"attributes.status = 'RUNNING' and tags.`apf.host` = '{socket.gethostname()}'"
    closed = []
    for run in tracker.search_runs([experiment], filter_string=mine):
        if not still_lives(run.data.tags):
            tracker.set_terminated(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_id))
    return closed


class TrialRun:
    """The child run of a trial. Points are sent in batches; a resumed run repeats none."""

    def __init__(self, run_id: str, logged: dict[str, int]) -> None:
        self.run_id = run_id
        self._logged = logged
        self._waiting: list[tuple[str, float, int, int]] = []
        self._sent = time.monotonic()
        self._warned = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Points of one step; sent with the next flush."""
        now_ms = int(time.time() * 1000)
        new = {name: value for name, value in metrics.items() if step > self._logged.get(name, -1)}
        self._waiting += [(name, float(value), now_ms, step) for name, value in new.items()]
        if time.monotonic() - self._sent > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits. A tracker that does not answer is said once, and the points wait: training goes on."""
        from mlflow.entities import Metric

        self._sent = time.monotonic()
        try:
            while self._waiting:
                batch = self._waiting[:BATCH]
                client().log_batch(self.run_id, metrics=[Metric(*point) for point in batch])
                self._waiting = self._waiting[BATCH:]
        except Exception as error:  # whatever the tracker's trouble is, it is not training's
            if not self._warned:
                logger.warning("           the tracker does not answer (%s); training goes on, points wait", error)
            self._warned = True


@contextmanager
def trial_run(out: Path, label: str, params: Mapping[str, Any], resumed_from: int | None) -> Iterator[TrialRun]:
    """The child run of the trial that works under `out`; the same run again after an interruption."""
    tracker = client()
    file = out / RUN_FILE
    parent = _pipeline.get().run_id
    tags = owner_tags() | {"apf.kind": "trial"} | ({"mlflow.parentRunId": parent} if parent else {})
    if file.is_file() and (found := _existing(file.read_text())) is not None:
        run_id = str(found.info.run_id)
        for name, value in (tags | {"apf.resumed_from_step": str(resumed_from or 0)}).items():
            tracker.set_tag(run_id, name, value)
        tracker.update_run(run_id, status="RUNNING")
        logged = {m: max(p.step for p in tracker.get_metric_history(run_id, m)) for m in found.data.metrics}
    else:
        experiment = experiment_id(_pipeline.get().experiment)
        run_id = str(tracker.create_run(experiment, run_name=label or "train", tags=tags).info.run_id)
        file.write_text(run_id)
        logged = {}
    log_params(run_id, params)
    run = TrialRun(run_id, logged)
    try:
        yield run
    except BaseException as error:
        run.flush()
        tracker.set_tag(run_id, "apf.error", f"{type(error).__name__}: {error}"[:5000])
        tracker.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.flush()
    tracker.set_terminated(run_id, "FINISHED")


def _existing(run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        return client().get_run(run_id)
    except MlflowException:
        return None  # another tracking store than the one that the interrupted run wrote to


def run_exists(run_id: str) -> bool:
    """Whether the tracking store knows the run."""
    return _existing(run_id) is not None


def log_datasets(run_id: str, splits: Mapping[str, TokenizedSplit | Corpus], source: str) -> None:
    """The splits as MLflow datasets, with our own digests (MLflow's see the first 10,000 rows alone)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=name,
                digest=split.fingerprint,
                source_type="apf",
                source=json.dumps({"source": source}),
                profile=json.dumps({"rows": split.rows, "tokens": split.tokens}),
            ),
            [InputTag("mlflow.data.context", name)],
        )
        for name, split in splits.items()
    ]
    client().log_inputs(run_id, inputs)


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Final numbers of a run."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    client().log_batch(run_id, metrics=[Metric(_legal(k), float(v), now_ms, step) for k, v in metrics.items()])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Tags of a run."""
    for name, value in tags.items():
        client().set_tag(run_id, _legal(name), value[:5000])


def log_files(run_id: str, files: Mapping[Path, str]) -> None:
    """File -> folder among the run's artifacts."""
    for path, folder in files.items():
        client().log_artifact(run_id, str(path), folder)


def log_text(run_id: str, text: str, name: str) -> None:
    """A text as a file among the run's artifacts."""
    client().log_text(run_id, text, name)
