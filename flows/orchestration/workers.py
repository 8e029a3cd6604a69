"""Trials at the same time: stage calls as Prefect tasks in worker processes, of this machine or of a cluster.

A worker is told the name of a stage and its arguments. What it makes is in the stage store and in MLflow, which all
workers share; how far it is, it writes into a small file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings

from apf_tasks import stages
from apf_tasks.cache import history, store
from apf_tasks.cache.journal import StageRun, journal
from apf_tasks.cache.stage import Stage, use_stage_runner
from apf_tasks.errors import InterruptedByUser, WorkerDiedError, WorkersError
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.calls import RemoteCall, Result
from apf_tasks.runtime.device_slots import exclusive_device
from apf_tasks.runtime.progress import (
    Listener,
    current_listener,
    file_listener,
    listening,
    read_moment,
    throttled_logger,
)
from apf_tasks.tracking import run_logger
from flows.orchestration.task import run_as_task
from flows.orchestration.task_runners import STOP, WORKERS, Pool, environment_kept, interruptible, runner_of

logger = logging.getLogger("apf")

POLL_SECONDS = 0.5
"""How often workers are checked, in seconds."""
DEATHS = ("BrokenProcessPool", "KilledWorker", "WorkerCrashedError", "OutOfMemoryError")
"""What concurrent.futures, Dask and Ray raise where a worker process died."""
OWNER = "owner"
"""A file that the process locks whose workers write beside it; the kernel unlocks it when that dies."""
TOLD = ("MLFLOW_", "HF_", "TRANSFORMERS_", "TOKENIZERS_")
"""Environment variables with these prefixes are passed to workers, which may be on other machines:
libraries take credentials and the like from nowhere else. Store and addresses are in the call's Workspace."""
Submit = Callable[[], PrefectFuture[Any]]
"""Give a call to a worker, once more if the first one died."""


@task(name="trial", task_run_name="{title}", cache_policy=NO_CACHE, persist_result=False)
def run_trial(title: str, call: RemoteCall) -> Result:
    """Make the call of a stage in this process."""
    try:
        return call.run()
    except KeyboardInterrupt:
        return Result(error=stopped())


def _run_stage(name: str, label: str, arguments: tuple[Any, ...]) -> StageRun:
    stage: Stage[Any, Any] = getattr(stages, name).labelled(label)
    with use_stage_runner(run_as_task), journal() as pipeline:
        stage(*arguments)
    return pipeline.stage_runs[-1]


@contextmanager
def _environment(said: dict[str, str]) -> Iterator[None]:
    """What libraries of others read, in a process that may be on another machine."""
    os.environ.update(said)
    yield


@contextmanager
def _progress_file(moment: Path) -> Iterator[None]:
    with listening(file_listener(moment)):
        yield


def stopped() -> InterruptedByUser:
    """The error of a search that was asked to stop."""
    return InterruptedByUser("search", "to finish", "a request to stop", "The same command continues where it was.")


class WorkerExecutor:
    """A crew of workers under one Prefect task runner."""

    def __init__(self, parallel: int, runtime: RuntimeParams) -> None:
        self._parallel, self._runtime = parallel, runtime
        self._runs = ExitStack()
        self._started = False
        self._watched: dict[Path, Listener] = {}

    def __enter__(self) -> WorkerExecutor:
        (store.root() / "stages").mkdir(parents=True, exist_ok=True)
        with ExitStack() as opening:
            opening.enter_context(environment_kept())
            self._folder = opening.enter_context(_owned_folder())
            with get_client(sync_client=True) as client:  # one server for all: a worker must not start one of its own
                opening.enter_context(temporary_settings({PREFECT_API_URL: str(client.api_url)}))
            self._runner = runner_of(self._parallel, self._folder)  # starts with the first call: all may be known
            self._open = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        with self._open:
            if kind is not None:
                (self._folder / STOP).touch()
            self._runs.close()

    def _start_again(self) -> None:
        self._runs.close()
        self._runner = self._runs.enter_context(runner_of(self._parallel, self._folder))

    def start(self, stage: Stage[Any, Any], arguments: tuple[Any, ...], beside: int) -> Callable[[], Any]:
        """Give the call to a worker, unless its result is stored. The last of a search has all threads for itself."""
        record = stage.record(*arguments)
        if stage.stored(record.key) is not None:
            return lambda: stage(*arguments)
        reason = history.explain_miss(record)
        logger.info("%-10s runs: %s", stage.title, reason)
        moment = self._folder / f"{record.key}.json"
        contexts = (
            partial(_environment, {name: value for name, value in os.environ.items() if name.startswith(TOLD)}),
            interruptible,
            partial(exclusive_device, self._runtime, beside),  # all beside it share the threads
            partial(run_logger.within, run_logger.current_pipeline()),
            partial(_progress_file, moment),
        )
        call = RemoteCall(_run_stage, (stage.name, stage.label, arguments), contexts)
        submit = partial(self._submit, f"{stage.name} {stage.label}".strip(), call)
        self._watched[moment] = throttled_logger()
        return partial(self._result, stage, moment, reason, submit, submit())

    def _submit(self, title: str, call: RemoteCall) -> PrefectFuture[Any]:
        parameters = {"title": title, "call": call}
        first = not self._started
        try:
            if first:
                self._runner, self._started = self._runs.enter_context(self._runner), True
            return self._runner.submit(run_trial, parameters)  # type: ignore[no-any-return]  # Dask connects here
        except Exception as error:
            if not first:
                raise
            said = f"{type(error).__name__}: {error}"
            raise WorkersError(WORKERS, "workers that respond", said, "Correct it, or unset it.") from error

    def _result(
        self, stage: Stage[Any, Any], moment: Path, reason: str, submit: Submit, future: PrefectFuture[Any]
    ) -> Any:
        try:
            outcome = self._wait(future)
        except Exception as error:
            if not _is_death(error):
                raise
            outcome = self._retry(submit, error)
        finally:
            self._watched.pop(moment, None)
        if outcome.error is not None:
            raise outcome.error
        stage_run: StageRun = outcome.value
        return stage.note(
            stage_run.status, reason if stage_run.status == "ran" else "", stage_run.seconds, stage_run.handle
        )

    def _retry(self, submit: Submit, error: Exception) -> Result:
        """A pool that lost one worker has lost all calls: this one is made again, with nobody beside it."""
        if not isinstance(self._runner, Pool):
            return Result(error=_worker_died(error))
        self._start_again()
        try:
            return self._wait(submit())
        except Exception as again:
            if not _is_death(again):
                raise
            self._start_again()
            return Result(error=_worker_died(again))

    def _wait(self, future: PrefectFuture[Any]) -> Result:
        """Until the call is made; meanwhile whoever listens is told how far all calls are."""
        try:
            while True:
                try:
                    return future.result(timeout=POLL_SECONDS)  # type: ignore[no-any-return]
                except TimeoutError:
                    self._tell()
        except KeyboardInterrupt:  # whenever it comes
            raise stopped() from None

    def _tell(self) -> None:
        for path, say in self._watched.items():
            if (update := read_moment(path)) is not None and update.done < update.total:
                (current_listener() or say)(update)


@contextmanager
def _owned_folder() -> Iterator[Path]:
    """A folder for what workers write, locked while this process lives. Those of processes that were killed go."""
    with ExitStack() as kept:
        with store.lock(".workers"):  # no folder is there without its lock
            _remove_abandoned()
            made = tempfile.TemporaryDirectory(prefix=".workers-", dir=store.root(), ignore_cleanup_errors=True)
            folder = Path(kept.enter_context(made))
            fcntl.flock(kept.enter_context((folder / OWNER).open("w")), fcntl.LOCK_EX)
        yield folder


def _remove_abandoned() -> None:
    for folder in store.root().glob(".workers-*"):
        try:
            with (folder / OWNER).open("a") as owner:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its owner lives, or is removing it
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _is_death(error: Exception) -> bool:
    """Whether a worker process died at its work; anything else is trouble of the cluster or the orchestrator."""
    return type(error).__name__ in DEATHS


def _worker_died(error: Exception) -> WorkerDiedError:
    found = " ".join(f"one that died ({type(error).__name__}: {error}".split()).rstrip(".: ") + ")"
    do = "Killed for want of memory, perhaps: lower train.micro_batch_tokens, or search.parallel."
    return WorkerDiedError("worker process", "one that finishes", found, do)
