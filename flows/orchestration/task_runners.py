"""Where parallel trials run: in processes of this machine, or on a Dask or Ray cluster that APF_WORKERS names."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, Self

import torch
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from apf_tasks.errors import ParamsError
from flows.orchestration._interrupts import resend_lost_sigint, sigint_blocked

WORKERS = "APF_WORKERS"
"""Nothing: processes of this machine. `dask` or `ray`: a temporary cluster. `dask:ADDRESS`, `ray:ADDRESS`:
one that is there."""
IMPORTED = ["mlflow", "apf_tasks.training.train", "flows.orchestration.workers"]
"""What a process imports before workers are forked from it."""
STOP = "stop"
"""A file of this name asks the workers to stop."""
WATCH_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
"""Seconds between two requests to stop: a worker that writes its checkpoint is not interrupted."""

_training = threading.Event()


class Pool(ProcessPoolTaskRunner):
    """Prefect's pool, whose workers are forked from a process that has imported what they need: once, not each."""

    def __enter__(self) -> Self:
        super().__enter__()
        if import_once():
            assert self._executor is not None
            self._executor._mp_context = multiprocessing.get_context("forkserver")  # no worker is started before a call
        return self


def import_once() -> bool:
    """Have a process begin to import what workers need. Whether they can be forked from it: CUDA does not bear that."""
    if os.environ.get(WORKERS) or torch.cuda.is_available():
        return False
    forkserver.set_forkserver_preload(IMPORTED)
    resource_tracker.ensure_running()  # would undo the next line
    with sigint_blocked():  # it meets no half import
        forkserver.ensure_running()
    return True


def runner_of(parallel: int, folder: Path) -> TaskRunner[Any]:
    """The task runner that APF_WORKERS asks for, not yet started. Raises ParamsError."""
    said = os.environ.get(WORKERS, "")
    kind, _, address = said.partition(":")
    if not kind:
        return Pool(parallel, initializer=_init_worker, initargs=(str(folder / STOP),))
    try:
        if kind == "dask":
            return _dask(parallel, address)
        if kind == "ray":
            return _ray(parallel, address)
    except ImportError as error:
        raise ParamsError(WORKERS, f"what {kind} needs", str(error), f"pip install 'apf[{kind}]'") from error
    raise ParamsError(WORKERS, "dask, ray, dask:ADDRESS or ray:ADDRESS", said, "Correct it, or unset it.")


@contextmanager
def environment_kept() -> Iterator[None]:
    """A cluster may live within the block: its workers get this process's threads, and this process its variables back.

    Dask and Ray tell their workers OMP_NUM_THREADS=1 otherwise, and Dask leaves that behind in this process.
    """
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _dask(parallel: int, address: str) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    if address:
        return DaskTaskRunner(address=address)
    local = {"n_workers": parallel, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=local)


def _ray(parallel: int, address: str) -> TaskRunner[Any]:
    from prefect_ray.task_runners import RayTaskRunner  # type: ignore[import-untyped]

    if address:
        return RayTaskRunner(address=address)  # type: ignore[no-any-return]
    # Ray's own niceness of 15 leaves a trial next to nothing beside any other program
    local = {"num_cpus": parallel, "include_dashboard": False, "_system_config": {"worker_niceness": 0}}
    return RayTaskRunner(init_kwargs=local)  # type: ignore[no-any-return]


def _init_worker(stop: str) -> None:
    """First thing in a worker process: Ctrl-C concerns it only while it trains, and it does not outlive its pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resend_lost_sigint()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_watch, args=(Path(stop),), daemon=True).start()


def _watch(stop: Path) -> None:
    pool = multiprocessing.parent_process()
    assert pool is not None
    while True:
        time.sleep(WATCH_SECONDS)
        orphan = not pool.is_alive()
        if orphan and not _training.is_set():
            os._exit(1)
        if orphan or stop.exists():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(PATIENCE_SECONDS)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block Ctrl-C raises KeyboardInterrupt, where this thread can hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    _training.set()
    try:
        yield
    finally:
        _training.clear()
        signal.signal(signal.SIGINT, before)
