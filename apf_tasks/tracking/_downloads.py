"""Registered models fetched from a server: once for all processes of a store, and gone when the last of them ends."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from apf_tasks.cache import store

_held: dict[Path, int] = {}
"""Folder -> descriptor of its lock, shared by all processes that read the folder, for as long as this one lives."""


def fetch_once(address: str, fetch: Callable[[Path], object]) -> Path:
    """A folder with what `fetch` puts into the one it is given, be it by this process or by another that still runs."""
    kept = store.root() / "downloads"
    folder = kept / sha256(address.encode()).hexdigest()[:16]
    if folder in _held:
        return folder
    kept.mkdir(parents=True, exist_ok=True)
    _remove_unused(kept)
    while folder not in _held:
        descriptor = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not folder.exists():
                _fetch(folder, descriptor, fetch)
        except BaseException:
            os.close(descriptor)
            raise
        if folder.exists() and os.fstat(descriptor).st_nlink:
            _held[folder] = descriptor
        else:  # another process was between two locks, and has removed it
            os.close(descriptor)
    atexit.register(_leave, folder, os.getpid())
    return folder


def _fetch(folder: Path, descriptor: int, fetch: Callable[[Path], object]) -> None:
    """Alone; then share the lock again. What was removed in the meantime is left to the next attempt."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if os.fstat(descriptor).st_nlink and not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        fetch(partial)
        partial.rename(folder)
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def _leave(folder: Path, process: int) -> None:
    if process == os.getpid():  # a forked process has it from its parent
        _remove_if_unused(folder, _held.pop(folder))


def _remove_unused(kept: Path) -> None:
    """What processes left that were killed."""
    for lock in kept.glob("*.lock"):
        if lock.with_suffix("") not in _held:
            with contextlib.suppress(FileNotFoundError):
                _remove_if_unused(lock.with_suffix(""), os.open(lock, os.O_RDWR | os.O_CLOEXEC))


def _remove_if_unused(folder: Path, descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_suffix(".partial"), ignore_errors=True)
        folder.with_suffix(".lock").unlink()
    os.close(descriptor)
