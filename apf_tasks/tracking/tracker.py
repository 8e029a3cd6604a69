"""The connection to MLflow: where it is, whether it answers, experiments, pages. Imports mlflow only when it is used.

The default store is `mlruns/mlflow.db` with artifacts in `mlruns/artifacts`; MLFLOW_TRACKING_URI overrides it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from apf_tasks.cache import store
from apf_tasks.cache.workspace import current_workspace
from apf_tasks.errors import RegistryError
from apf_tasks.tracking.databases import sqlite_address, sqlite_file
from apf_tasks.user_cache import put_empty_database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

HEALTH_SECONDS = 20.0
PATIENCE_SECONDS = 120.0
"""How long the start of a run waits for a tracker that is away."""
PAUSE_SECONDS = 2.0
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no run of that id."""
TOKEN_TAG = "apf.token"
"""Written down before a run is created, so that it is found when the answer is lost."""
EMPTY = ("delete from experiments",)
"""MLflow makes the default experiment again; its files would belong to another folder."""
T = TypeVar("T")
logger = logging.getLogger("apf")

_ready: set[str] = set()
_fluent = threading.RLock()


def tracking_uri() -> str:
    """Where MLflow records."""
    return current_workspace().tracking_uri or sqlite_address(store.root() / "mlflow.db")


def registry_uri() -> str:
    """Where models are registered."""
    return current_workspace().registry_uri or tracking_uri()


def client() -> MlflowClient:
    """A client of the tracking store, which is made under a lock at first use: its migration bears one process."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read there alone
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = tracking_uri()
    if _fluent.acquire(blocking=False):  # else a thread is within fluent_api(), perhaps in another workspace
        try:
            _point_mlflow()
        finally:
            _fluent.release()
    if uri not in _ready:
        _answers(uri)
        store.root().mkdir(parents=True, exist_ok=True)
        with (store.root() / ".mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _make_database(uri)
        _ready.add(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=registry_uri())


def _make_database(uri: str) -> None:
    """The first question, at which MLflow makes or migrates its database; our own is a copy of an empty one."""
    own = store.root() / "mlflow.db"
    if uri == sqlite_address(own):
        put_mlflow_database(own)
    _ask(uri, registry_uri())


def put_mlflow_database(database: Path) -> None:
    """An empty database of MLflow's, where there is none."""
    put_empty_database("mlflow", database, lambda made: _ask(*[sqlite_address(made)] * 2), EMPTY)


def _ask(uri: str, registry: str) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=uri, registry_uri=registry).search_experiments(max_results=1)


@contextmanager
def fluent_api() -> Iterator[None]:
    """Within the block functions of the module `mlflow` use the current workspace.

    They take their addresses from this process, not from the context: one thread at a time.
    """
    with _fluent:
        _point_mlflow()
        yield


def _point_mlflow() -> None:
    import mlflow

    if mlflow.get_tracking_uri() == tracking_uri() and mlflow.get_registry_uri() == registry_uri():
        return
    said = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(tracking_uri())
    mlflow.set_registry_uri(registry_uri())
    for name, value in said.items():  # mlflow writes them into the environment, where only the user's word belongs
        os.environ.pop(name, None)
        os.environ.update({name: value} if value else {})


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
def translated_errors() -> Iterator[None]:
    """An error of MLflow as one of ours: in the middle of a job it most often means that the tracker is away."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        found = str(error).strip().splitlines()[0][:300]
        do = "Computed results are kept: the same command continues when the tracker is available."
        raise RegistryError(f"tracker {tracking_uri()}", "to record there", found, do) from error


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` gets from the tracker; asked again while that is away, or loses its answers, for PATIENCE_SECONDS.

    So it must bear to be asked twice. Raises RegistryError then, and at once where asking again cannot help.
    """
    from mlflow.exceptions import MlflowException

    until, waited = time.monotonic() + PATIENCE_SECONDS, False
    with translated_errors(), _asked_once():
        while True:
            try:
                found = ask()
            except (MlflowException, RegistryError) as error:
                if not _may_pass(error) or time.monotonic() > until:
                    raise
                if not waited:
                    said = str(error).splitlines()[0][:200]
                    logger.warning("           waits for the tracker, %.0f s at most (%s)", PATIENCE_SECONDS, said)
                waited = True
                time.sleep(PAUSE_SECONDS)
            else:
                if waited:
                    logger.info("           the tracker answers again")
                return found


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be answered later."""
    status = getattr(error, "get_http_status_code", lambda: HTTPStatus.BAD_GATEWAY)()
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


@contextmanager
def _asked_once() -> Iterator[None]:
    """Within the block mlflow repeats no request by itself: one whose answer was lost would make a second run.

    It asks the environment before each request, and nothing else: so this holds for all threads.
    """
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        os.environ.pop(RETRIES)
        os.environ.update({} if before is None else {RETRIES: before})


def find_run(run_id: str) -> Run | None:
    """The run, if the tracking store knows it. Raises MlflowException when it does not say."""
    from mlflow.exceptions import MlflowException

    try:
        return client().get_run(run_id)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:
            raise
        return None  # another tracking store than the one that the interrupted run wrote to


def run_exists(run_id: str) -> bool:
    """Whether the tracking store says that it knows the run; one that is away does not."""
    from mlflow.exceptions import MlflowException

    try:
        return find_run(run_id) is not None
    except MlflowException:
        return False


def run_of_token(experiment: str, token: str) -> Run | None:
    """The run of an experiment (its id) that was created with this token, if its creation was heard of."""
    found = client().search_runs([experiment], filter_string=f"tags.`{TOKEN_TAG}` = '{token}'", max_results=1)
    return found[0] if found else None


def new_run(experiment: str, name: str, tags: Mapping[str, str], token: str, start_ms: int | None = None) -> str:
    """A run in an experiment (its name); the one with that token where an earlier answer was lost.

    Raises RegistryError.
    """

    def ask() -> str:
        place = experiment_id(experiment)
        if (lost := run_of_token(place, token)) is not None:
            take_over(lost.info.run_id, tags)
            return str(lost.info.run_id)
        made = client().create_run(place, start_ms, run_name=name, tags={**tags, TOKEN_TAG: token})
        return str(made.info.run_id)

    return patiently(ask)


def take_over(run_id: str, tags: Mapping[str, str]) -> None:
    """The run is under way again, and these are its tags."""
    from mlflow.entities import RunTag

    client().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    client().update_run(run_id, status="RUNNING")


def experiment_id(name: str) -> str:
    """The experiment called `name`, made when it does not exist, with an absolute artifact folder for a local store."""
    tracker = client()
    with (store.root() / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := tracker.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        local = sqlite_file(tracking_uri()) is not None
        location = (store.root() / "artifacts" / name).as_uri() if local else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # opens the UI on training runs
        return str(tracker.create_experiment(name, artifact_location=location, tags=kind))


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


def last_steps(run_id: str) -> dict[str, int]:
    """Metric -> the last step that the tracker has."""
    found = client()
    metrics = found.get_run(run_id).data.metrics
    return {name: max(point.step for point in found.get_metric_history(run_id, name)) for name in metrics}


def log_points(run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
    """Name, value, time in ms and step of up to 1,000 points, in one call."""
    from mlflow.entities import Metric

    client().log_batch(run_id, metrics=[Metric(*point) for point in points])


def end_run(run_id: str, status: str, at_ms: int, tags: Mapping[str, str]) -> None:
    """How a run ended, and when."""
    for name, value in tags.items():
        client().set_tag(run_id, name, value)
    client().set_terminated(run_id, status, at_ms)
