"""The stage store: one folder per result under `mlruns/stages/<stage>/<key>/`.

A stage writes into `<key>.partial`; when it is done `handle.json` is added, all files are flushed and listed with their
digests in `record.json` (with inputs and code), and one rename makes the folder appear. So a folder with its final name
is complete: a crash leaves a `.partial`, never a half result. Deleting a folder is how a result is invalidated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from apf_tasks.artifacts import Artifact
from apf_tasks.cache.fingerprints import file_digest, fsync
from apf_tasks.cache.workspace import current_workspace
from apf_tasks.errors import StoreError
from apf_tasks.params.base import Frozen

logger = logging.getLogger("apf")

A = TypeVar("A", bound=Artifact)

HANDLE, RECORD = "handle.json", "record.json"
CHECKPOINT_DIR = "checkpoint"
"""The folder in a `.partial` with what its stage needs to go on after an interruption, and nobody when it is done."""
PAUSED = "paused"
"""A file in there while the work rests where it was meant to: says from where it goes on."""


def root() -> Path:
    """The folder of everything apf records: the current workspace's; by default `mlruns` here, or APF_MLRUNS."""
    return current_workspace().root


def stage_folder(stage: str, key: str = "") -> Path:
    """Where the results of a stage, or one of them, live."""
    return root() / "stages" / stage / key


def partial_folder(stage: str, key: str) -> Path:
    """Where a result is while it is being made."""
    return root() / "stages" / stage / f"{key}.partial"


class StoredFile(Frozen):
    """One line of a result's file list."""

    bytes: int
    modified_ns: int
    digest: str


class Record(Frozen):
    """How a result came to be: enough to verify it, and to say why another call is different."""

    stage: str
    key: str
    inputs: dict[str, Any]
    """Dotted parameter or `content of X` -> value."""
    code: dict[str, str]
    """Module -> digest of its syntax tree."""
    libraries: dict[str, str]
    seconds: float
    experiment: str = ""
    """Which one made it. Not part of the key: others may come to the same."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Where it was computed: python, cpu, threads, library -> exact version. Not part of the key."""
    files: dict[str, StoredFile] = Field(default_factory=dict)


def open_partial(stage: str, key: str, resumable: bool) -> Path:
    """An empty `.partial` folder; a resumable stage finds what its interrupted predecessor left."""
    partial = partial_folder(stage, key)
    if partial.exists() and not resumable:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def take_lock(key: str, timeout: float | None = None) -> int | None:
    """A descriptor that holds the lock of a key until it is closed, or its holder dies; waits for whoever holds it.

    None when that takes more than `timeout` seconds. Raises StoreError.
    """
    folder = root() / "stages" / ".locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError as error:
        raise store_error(error, "lock") from error
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.1)  # so that signals and timeouts are heard
        except BaseException:
            os.close(descriptor)
            raise


@contextmanager
def lock(key: str) -> Iterator[None]:
    """Be the only one who works on the result `key`."""
    descriptor = take_lock(key)
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


def commit(partial: Path, handle: Artifact, record: Record) -> Artifact:
    """Make a finished `.partial` folder the result: flush, list, add the handle, rename. Returns the final handle."""
    final = partial.with_name(record.key)
    handle = handle.model_copy(update={"path": final})
    (partial / HANDLE).write_text(handle.model_dump_json())
    made = [p for p in sorted(partial.rglob("*")) if p.is_file() and (partial / CHECKPOINT_DIR) not in p.parents]
    files = {str(p.relative_to(partial)): _flush(p) for p in made}
    (partial / RECORD).write_text(record.model_copy(update={"files": files}).model_dump_json(indent=1))
    fsync(partial / RECORD)
    fsync(partial)
    if final.exists():  # damaged or without a handle, or load() would have returned it
        shutil.rmtree(final)
    partial.rename(final)
    fsync(final.parent)
    shutil.rmtree(final / CHECKPOINT_DIR, ignore_errors=True)
    return handle


def with_fingerprint(stage: str, fingerprint: str, kind: type[A]) -> A | None:
    """A verified result by what is in it, whatever its key was; None when the store has none."""
    for folder in sorted((root() / "stages" / stage).glob("*")):
        handle = None if folder.suffix == ".partial" else load(stage, folder.name, kind)
        if handle is not None and handle.fingerprint == fingerprint:
            return handle
    return None


def evict(stage: str, key: str) -> None:
    """Take a result out of the store, when nobody works on it."""
    with lock(key):
        shutil.rmtree(stage_folder(stage, key), ignore_errors=True)


def load(stage: str, key: str, kind: type[A]) -> A | None:
    """The verified result, or None when there is none. A damaged one is said, and counts as none."""
    folder = stage_folder(stage, key)
    if not (folder / HANDLE).is_file():
        return None
    if problem := find_damage(folder):
        logger.warning("%s: the stored result %s is damaged (%s); it is recomputed", stage, folder, problem)
        return None
    try:
        return _relocate(kind.model_validate_json((folder / HANDLE).read_text()))
    except ValidationError:
        return None  # written by another version of the handle's class


def _relocate(handle: A) -> A:
    """The handle, and handles within it, with paths under today's root: the project folder may have moved."""
    inner = {name: _relocate(value) for name, value in handle if isinstance(value, Artifact)}
    return handle.model_copy(update={"path": stage_folder(*handle.path.parts[-2:]), **inner})


def find_damage(folder: Path) -> str:
    """What is wrong with a stored result, "" when nothing is.

    A file whose size and modification time are as recorded is believed; otherwise its content is read again.
    """
    if (record := read_record(folder.parent.name, folder.name)) is None:
        return f"{RECORD} cannot be read"
    for name, expected in record.files.items():
        try:
            status = (folder / name).stat()
        except OSError:
            return f"{name} is missing"
        if status.st_size != expected.bytes:
            return f"{name} has {status.st_size:,} bytes, not {expected.bytes:,}"
        if status.st_mtime_ns != expected.modified_ns and file_digest(folder / name) != expected.digest:
            return f"{name} has other content"
    return ""


def records(stage: str) -> list[Record]:
    """The records of all results of a stage that can be read, the oldest first."""
    found = []
    for path in stage_folder(stage).glob(f"*/{RECORD}"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, read_record(stage, path.parent.name)))
    return [record for _, record in sorted(found, key=lambda pair: pair[0]) if record is not None]


def read_record(stage: str, key: str) -> Record | None:
    """How a result came to be; None where it is gone, or its record cannot be read."""
    try:
        return Record.model_validate_json((stage_folder(stage, key) / RECORD).read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def store_error(error: OSError, stage: str) -> StoreError:
    """The error a person gets when the store cannot be written."""
    free_gib = shutil.disk_usage(root().parent if not root().exists() else root()).free / 2**30
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        found, do = (
            f"{free_gib:.1f} GiB free",
            "Free some space and run the same command again: finished stages are kept.",
        )
    else:
        found, do = str(error), "Make the folder writable, or point APF_MLRUNS at another one."
    return StoreError(f"stage {stage}, writing under {root()}", "room to write its result", found, do)


def _flush(path: Path) -> StoredFile:
    fsync(path)
    status = path.stat()
    return StoredFile(bytes=status.st_size, modified_ns=status.st_mtime_ns, digest=file_digest(path))
