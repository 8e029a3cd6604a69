"""The folder of what can be made, or fetched, again: of a user, for all projects."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

Make = Callable[[Path], object]
"""Have a library make its empty database at a path."""


def cache_folder() -> Path:
    """Where downloads and what is costly to make are kept: `$APF_CACHE`, else `~/.cache/apf`."""
    return Path(os.environ.get("APF_CACHE") or Path.home() / ".cache" / "apf")


def put_empty_database(library: str, database: Path, make: Make, clean: Sequence[str] = ()) -> None:
    """Where there is no database yet: a copy of the empty one of these releases, which is made where none is kept.

    Migrations take seconds, a copy takes none. The database appears in one step, whole, however many processes want it.
    `clean` are statements for the one that is kept.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{database.name}-", dir=database.parent) as folder:
        copy = Path(folder, "copy.db")
        try:
            _copy_kept(library, copy, make, clean)
        except OSError:  # a cache that cannot be written
            _make_empty(copy, make, clean)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(copy, database)


def _copy_kept(library: str, copy: Path, make: Make, clean: Sequence[str]) -> None:
    releases = "-".join(f"{name}-{version(name)}" for name in (library, "alembic", "sqlalchemy"))  # these decide tables
    kept = cache_folder().resolve() / "databases" / f"{releases}.db"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(kept):
            _keep(kept, make, clean)
        shutil.copyfile(kept, copy)


def _keep(kept: Path, make: Make, clean: Sequence[str]) -> None:
    """Make the database beside its place, and put it there in one step; `kept` is locked."""
    folder = kept.with_suffix(".making")
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    folder.mkdir()
    _make_empty(folder / "copy.db", make, clean)
    (folder / "copy.db").replace(kept)
    shutil.rmtree(folder, ignore_errors=True)


def _make_empty(copy: Path, make: Make, clean: Sequence[str]) -> None:
    """In one file, whatever the journal of the library is."""
    made = copy.with_name("made.db")
    make(made)
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        for statement in clean:
            target.execute(statement)
        target.commit()


def _is_whole(database: Path) -> bool:
    """Whether a kept database opens, and has been migrated."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as kept:
            checked, migrated = (
                kept.execute(said).fetchone() for said in ("pragma quick_check", "select count(*) from alembic_version")
            )
    except sqlite3.Error:
        return False
    return bool(checked == ("ok",) and migrated == (1,))
