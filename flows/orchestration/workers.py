"""Trials at the same time: stage calls as Prefect tasks in worker processes, of this machine or of a cluster.

A worker is told the name of a stage and its arguments. What it makes is in the stage store and in MLflow, which all
workers share; how far it is, it writes into a small file.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
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
from apf_tasks.errors import InterruptedByUser, WorkerDiedError, WorkersError, portable
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.progress import (
    Listener,
    current_listener,
    file_listener,
    listening,
    read_moment,
    throttled_logger,
)
from apf_tasks.tracking import run_logger as tracking
from flows.orchestration.task import run_as_task
from flows.orchestration.task_runners import STOP, WORKERS, Pool, environment_kept, interruptible, runner_of

logger = logging.getLogger("apf")

POLL_SECONDS = 0.5
"""How often workers are checked, in seconds."""
DEATHS = ("BrokenProcessPool", "KilledWorker", "WorkerCrashedError", "OutOfMemoryError")
"""What concurrent.futures, Dask and Ray raise where a worker process died."""
TOLD = ("MLFLOW_", "HF_", "TRANSFORMERS_", "TOKENIZERS_")
"""Environment variables with these prefixes are passed to workers, which may be on other machines."""


@dataclass(frozen=True)
class StageCall:
    """A stage call for a worker."""

    stage: str
    label: str
    arguments: tuple[Any, ...]
    runtime: RuntimeParams
    beside: int
    """Calls at the same time, this one among them: they share the threads."""
    pipeline: tracking.Pipeline
    environment: dict[str, str]
    moment: Path
    """The file that says how far it is."""


@dataclass(frozen=True)
class StageResult:
    """What came of a call: the visit of its stage, or what it raised."""

    visit: StageRun | None = None
    error: Exception | None = None


@task(name="trial", task_run_name="{title}", cache_policy=NO_CACHE, persist_result=False)
def run_stage_call(title: str, call: StageCall) -> StageResult:
    """Make one stage call in this process, on a device of its own."""
    from apf_tasks.runtime.device_slots import exclusive_device

    os.environ.update(call.environment)
    stage: Stage[Any, Any] = getattr(stages, call.stage).labelled(call.label)
    try:
        with (
            interruptible(),
            exclusive_device(call.runtime, call.beside),
            tracking.within(call.pipeline),
            listening(file_listener(call.moment)),
            use_stage_runner(run_as_task),
            journal() as pipeline,
        ):
            stage(*call.arguments)
        return StageResult(visit=pipeline.stage_runs[-1])
    except KeyboardInterrupt:
        return StageResult(error=stopped())
    except Exception as error:
        return StageResult(error=portable(error))


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
            folder = opening.enter_context(tempfile.TemporaryDirectory(prefix=".workers-", dir=store.root()))
            self._folder = Path(folder)
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
        environment = {name: value for name, value in os.environ.items() if name.startswith(TOLD)}
        call = StageCall(
            stage=stage.name,
            label=stage.label,
            arguments=arguments,
            runtime=self._runtime,
            beside=beside,
            pipeline=tracking.current_pipeline(),
            environment=environment | {"APF_MLRUNS": str(store.root())},
            moment=self._folder / f"{record.key}.json",
        )
        self._watched[call.moment] = throttled_logger()
        return functools.partial(self._result, stage, call, reason, self._submit(call))

    def _submit(self, call: StageCall) -> PrefectFuture[Any]:
        parameters = {"title": f"{call.stage} {call.label}".strip(), "call": call}
        first = not self._started
        try:
            if first:
                self._runner, self._started = self._runs.enter_context(self._runner), True
            return self._runner.submit(run_stage_call, parameters)  # type: ignore[no-any-return]  # Dask connects here
        except Exception as error:
            if not first:
                raise
            said = f"{type(error).__name__}: {error}"
            raise WorkersError(WORKERS, "workers that respond", said, "Correct it, or unset it.") from error

    def _result(self, stage: Stage[Any, Any], call: StageCall, reason: str, future: PrefectFuture[Any]) -> Any:
        try:
            outcome = self._wait(future)
        except Exception as error:
            if not _is_death(error):
                raise
            outcome = self._retry(call, error)
        finally:
            self._watched.pop(call.moment, None)
        if outcome.error is not None:
            raise outcome.error
        stage_run = outcome.visit
        assert stage_run is not None
        return stage.note(
            stage_run.status, reason if stage_run.status == "ran" else "", stage_run.seconds, stage_run.handle
        )

    def _retry(self, call: StageCall, error: Exception) -> StageResult:
        """A pool that lost one worker has lost all calls: this one is made again, with nobody beside it."""
        if not isinstance(self._runner, Pool):
            return StageResult(error=_worker_died(error))
        self._start_again()
        try:
            return self._wait(self._submit(call))
        except Exception as again:
            if not _is_death(again):
                raise
            self._start_again()
            return StageResult(error=_worker_died(again))

    def _wait(self, future: PrefectFuture[Any]) -> StageResult:
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


def _is_death(error: Exception) -> bool:
    """Whether a worker process died at its work; anything else is trouble of the cluster or the orchestrator."""
    return type(error).__name__ in DEATHS


def _worker_died(error: Exception) -> WorkerDiedError:
    found = " ".join(f"one that died ({type(error).__name__}: {error}".split()).rstrip(".: ") + ")"
    do = "Killed for want of memory, perhaps: lower train.micro_batch_tokens, or search.parallel."
    return WorkerDiedError("worker process", "one that finishes", found, do)
