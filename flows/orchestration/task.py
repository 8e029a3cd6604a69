"""A stage call as a Prefect task.

Prefect's result record is the stage store's own handle: the storage here reads verified handles and writes nothing, for
the store has already written when Prefect would. The lock is a flock, so that two flow runs that want the same key
compute it once, and a killed holder frees it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from pathlib import Path
from typing import Any, TypeVar

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultRecord, ResultRecordMetadata  # type: ignore[attr-defined]
from prefect.serializers import JSONSerializer
from prefect.transactions import IsolationLevel
from pydantic import PrivateAttr

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.stage import Stage
from apf_tasks.errors import StoreError

R = TypeVar("R", bound=Artifact)


def as_task(stage: Stage[Any, R], record: store.Record) -> tuple[Task[..., R], list[str]]:
    """The task of one call, and a list that gets the key when the function really runs."""
    ran: list[str] = []

    def run(*args: Any, **kwargs: Any) -> R:
        ran.append(record.key)
        return stage.run(record, args, kwargs)

    run.__signature__ = inspect.signature(functools.partial(stage.function, Path()))  # type: ignore[attr-defined]
    run.__doc__ = stage.function.__doc__
    task = Task(
        fn=run,
        name=stage.name,
        task_run_name=stage.title.replace("{", "(").replace("}", ")"),  # braces would be a template
        cache_policy=StagePolicy(record.key),
        result_serializer=JSONSerializer(),
        persist_result=True,
        cache_result_in_memory=False,
    )
    task.result_storage = HandleStorage.of(stage)  # the constructor takes only storages that a server has saved
    return task, ran


def run_as_task(
    stage: Stage[Any, R], record: store.Record, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[R, bool]:
    """Run a stage call as a Prefect task."""
    task, ran = as_task(stage, record)
    handle = task(*args, **kwargs)
    return handle, bool(ran)


class StagePolicy(CachePolicy):
    """Cache by the key that the stage has computed: Prefect would swallow an error in a key, and it must be loud."""

    def __init__(self, key: str) -> None:
        super().__init__(isolation_level=IsolationLevel.SERIALIZABLE, lock_manager=FlockManager())
        self.key = key

    def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> str:
        """The stage's key."""
        return self.key


class HandleStorage(WritableFileSystem):
    """Prefect's view of one stage in the store: a record exists when the handle does and its files are as recorded."""

    _stage: Stage[Any, Any] | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, stage: Stage[Any, Any]) -> HandleStorage:
        """The storage of a stage's results."""
        storage = cls()
        storage._stage = stage
        return storage

    def _resolve_path(self, path: str) -> None:
        return None  # keys are no paths: Prefect then leaves them as they are

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """The record of a key. Raises FileNotFoundError, which Prefect takes as a miss."""
        assert self._stage is not None
        handle = self._stage.stored(path)
        if handle is None:
            raise FileNotFoundError(path)
        metadata = ResultRecordMetadata(storage_key=path, serializer=JSONSerializer())
        return ResultRecord(result=handle, metadata=metadata).serialize()

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Nothing: the stage has been committed by the store."""


class FlockManager:
    """Prefect's lock protocol over flock: one file per key, freed by the kernel when its holder dies."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, str]] = {}

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the key's lock, waiting for whoever holds it."""
        if key in self._held:
            return self._held[key][1] == holder
        descriptor = store.take_lock(key, acquire_timeout)
        if descriptor is None:
            return False
        self._held[key] = (descriptor, holder)
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back. Raises StoreError when it is somebody else's.

        One that nobody holds is no error: Prefect gives the lock of a task that failed within a task back twice.
        """
        if key not in self._held:
            return
        descriptor, owner = self._held[key]
        if owner != holder:
            raise StoreError(f"lock {key}", f"holder {holder}", owner, "This is a bug; please report it.")
        del self._held[key]
        os.close(descriptor)

    def is_locked(self, key: str) -> bool:
        """Whether anybody holds the lock."""
        if key in self._held:
            return True
        probe = FlockManager()
        free = probe.acquire_lock(key, "probe", acquire_timeout=0)
        if free:
            probe.release_lock(key, "probe")
        return not free

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether `holder` has the lock."""
        return self._held.get(key, (-1, ""))[1] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock."""
        if key in self._held:
            return True
        probe = FlockManager()
        free = probe.acquire_lock(key, "probe", acquire_timeout=timeout)
        if free:
            probe.release_lock(key, "probe")
        return free

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """acquire_lock, off the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """wait_for_lock, off the event loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)
