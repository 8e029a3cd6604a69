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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

from apf_tasks import store
from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.errors import RegistryError
from apf_tasks.frozen import dotted
from apf_tasks.outbox import End, Outbox, Point, deliver_leftovers, now_ms
from apf_tasks.run_owner import owner_tags, still_lives
from apf_tasks.word_vectors.artifacts import Corpus
from apf_tasks.word_vectors.params import Experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger("apf")

RUN_FILE = "mlflow_run_id"
HEALTH_SECONDS = 20.0

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
        _answers(uri)
        store.root().mkdir(parents=True, exist_ok=True)
        with (store.root() / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found.search_experiments(max_results=1)
        _ready.add(uri)
    return found


def _answers(uri: str) -> None:
    """Raises RegistryError at once when nobody listens there; mlflow itself would ask for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=HEALTH_SECONDS):
            return
    except HTTPError as error:
        if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return  # somebody is there, and keeps that address to itself
        found = str(error)
    except OSError as error:
        found = str(error)
    do = "Start the server, or unset MLFLOW_TRACKING_URI to record in this project's folder."
    raise RegistryError(f"tracker {uri}", "an answer", found, do)


@contextmanager
def _said_plainly() -> Iterator[None]:
    """An error of MLflow as one of ours: in the middle of a job it most often means that the tracker is away."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        found = str(error).strip().splitlines()[0][:300]
        do = "What was computed is kept: the same command continues when the tracker answers."
        raise RegistryError(f"tracker {tracking_uri()}", "to record there", found, do) from error


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
    deliver_leftovers()
    run = tracker.create_run(experiment, run_name=f"{params.name} {kind}", tags=owner_tags() | {"apf.kind": kind})
    run_id = str(run.info.run_id)
    with ended(Outbox(run_id)), _said_plainly(), within(Pipeline(params.name, run_id)):
        log_params(run_id, flat_params(params))
        yield run_id


@contextmanager
def ended(outbox: Outbox) -> Iterator[None]:
    """When the block ends, so does the run: as FINISHED, or with its error as FAILED or KILLED."""
    try:
        yield
    except BaseException as error:
        said = {"apf.error": f"{type(error).__name__}: {error}"[:5000]}
        outbox.close(End("FAILED" if isinstance(error, Exception) else "KILLED", now_ms(), said))
        raise
    outbox.close(End("FINISHED", now_ms(), {}))


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


def experiment_ids() -> list[str]:
    """All experiments of the tracker."""
    return [str(found.experiment_id) for found in pages(client().search_experiments)]


def pages(search: Callable[..., Any], **asked: Any) -> Iterator[Any]:
    """All that a search of MLflow's finds, page by page."""
    token = None
    while True:
        page = search(page_token=token, **asked)
        yield from page
        if not (token := page.token):
            return


def close_dead_runs(*experiments: str) -> list[str]:
    """Runs that this machine left RUNNING when their process died become KILLED. Returns their ids."""
    tracker = client()
    mine = f"attributes.status = 'RUNNING' and tags.`apf.host` = '{socket.gethostname()}'"
    closed = []
    for run in pages(tracker.search_runs, experiment_ids=list(experiments), filter_string=mine):
        if not still_lives(run.data.tags):
            tracker.set_terminated(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_id))
    return closed


class TrialRun:
    """The child run of a trial: its points go into an outbox, and from there to the tracker."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.outbox = Outbox(run_id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Points of one step."""
        now = now_ms()
        self.outbox.add([Point(name, float(value), now, step) for name, value in metrics.items()])

    def flush(self) -> None:
        """Everything so far is on the disk."""
        self.outbox.flush()


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
    else:
        experiment = experiment_id(_pipeline.get().experiment)
        run_id = str(tracker.create_run(experiment, run_name=label or "train", tags=tags).info.run_id)
        file.write_text(run_id)
    log_params(run_id, params)
    run = TrialRun(run_id)
    with ended(run.outbox):
        yield run


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

    now = now_ms()
    client().log_batch(run_id, metrics=[Metric(_legal(k), float(v), now, step) for k, v in metrics.items()])


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
