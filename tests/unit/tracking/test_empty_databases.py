"""An empty database is made once for all folders, appears whole, and has nothing of any of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from apf_tasks import user_cache
from apf_tasks.user_cache import cache_folder, put_empty_database

EMPTY = {"alembic_version": ["head"], "experiments": []}


class Library:
    """Makes a database like MLflow's, with a journal beside it, as long as `opened` is open."""

    def __init__(self) -> None:
        self.opened: list[sqlite3.Connection] = []

    def put(self, database: Path) -> Path:
        put_empty_database("mlflow", database, self._make, ["delete from experiments"])
        return database

    def _make(self, database: Path) -> None:
        connection = sqlite3.connect(database, check_same_thread=False)
        self.opened.append(connection)
        connection.execute("pragma journal_mode=wal")
        for table, row in (("alembic_version", "head"), ("experiments", "Default")):
            connection.execute(f"create table {table} (name text)")
            connection.execute(f"insert into {table} values (?)", [row])
        connection.commit()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "cache"))
    found = Library()
    yield found
    for connection in found.opened:
        connection.close()


def tables(database: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(database)) as opened:
        return {table: [name for (name,) in opened.execute(f"select name from {table}")] for table in EMPTY}


def kept() -> Path:
    [found] = (cache_folder() / "databases").glob("*.db")
    return found


def test_it_is_made_once_and_copied_without_rows(tmp_path: Path, library: Library) -> None:
    first, second = (library.put(tmp_path / name / "mlflow.db") for name in ("first", "second"))
    for database in (first, second):
        assert tables(database) == EMPTY
        assert list(database.parent.iterdir()) == [database]
    assert len(library.opened) == 1
    with closing(sqlite3.connect(first)) as opened:
        opened.execute("insert into experiments values ('mine')")
        opened.commit()
    library.put(first)  # one that is there stays
    assert tables(first)["experiments"] == ["mine"]


@pytest.mark.parametrize("damage", ["nothing in it", "no database", "no tables", "cut short"])
def test_a_kept_one_that_is_damaged_is_made_anew(tmp_path: Path, library: Library, damage: str) -> None:
    library.put(tmp_path / "first.db")
    whole = kept().read_bytes()
    kept().write_bytes({"no database": b"text", "cut short": whole[: len(whole) // 2]}.get(damage, b""))
    if damage == "no tables":
        with closing(sqlite3.connect(kept())) as opened:
            opened.execute("pragma journal_mode=wal")
        assert kept().stat().st_size > 0
    assert tables(library.put(tmp_path / "second.db")) == EMPTY
    assert tables(kept()) == EMPTY
    assert len(library.opened) == 2


def test_another_release_of_what_decides_the_tables_has_its_own(
    tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = {"mlflow": "3", "alembic": "1", "sqlalchemy": "2"}
    monkeypatch.setattr(user_cache, "version", releases.__getitem__)
    library.put(tmp_path / "first.db")
    for count, name in enumerate(releases, start=2):
        releases[name] += ".1"
        library.put(tmp_path / f"{name}.db")
        assert len(library.opened) == count


def test_two_that_want_it_at_once_get_one_each(tmp_path: Path, library: Library) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(library.put, [tmp_path / f"{number % 4}.db" for number in range(8)]))
    assert [tables(database) for database in found] == [EMPTY] * 8
    assert len(library.opened) == 1


def test_one_that_was_killed_leaves_nothing_to_stumble_over(tmp_path: Path, library: Library) -> None:
    library.put(tmp_path / "first.db")
    half = kept().with_suffix(".making")
    half.mkdir()
    (half / "made.db").write_text("half of it")
    kept().unlink()
    assert tables(library.put(tmp_path / "second.db")) == EMPTY
    assert not half.exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "file"))
    assert tables(library.put(tmp_path / "mlflow.db")) == EMPTY
