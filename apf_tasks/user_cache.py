"""The folder of what can be made, or fetched, again: of a user, for all projects."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads and what is costly to make are kept: `$APF_CACHE`, else `~/.cache/apf`."""
    return Path(os.environ.get("APF_CACHE") or Path.home() / ".cache" / "apf")


def copy_empty_database(library: str, database: Path) -> None:
    """Where there is no database yet: the empty one of this release of the library, if it was kept.

    Its migrations take seconds, a copy takes none.
    """
    kept = _kept(library)
    if database.exists() or not kept.is_file():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    copy = database.with_name(f"{database.name}.{os.getpid()}.copy")
    shutil.copyfile(kept, copy)
    with contextlib.suppress(FileExistsError):  # another process was first
        os.link(copy, database)
    copy.unlink()


def keep_empty_database(library: str, database: Path, clean: Sequence[str]) -> None:
    """Keep a database that the library has just made, for `copy_empty_database`, after these statements."""
    kept = _kept(library)
    if kept.exists():
        return
    with contextlib.suppress(OSError, sqlite3.Error):  # the next one is made, then
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}")
        with closing(sqlite3.connect(database)) as made, closing(sqlite3.connect(partial)) as copy:
            made.backup(copy)
            for statement in clean:
                copy.execute(statement)
            copy.commit()
        partial.rename(kept)


def _kept(library: str) -> Path:
    return cache_folder() / "databases" / f"{library}-{version(library)}.db"
