"""An empty database that was kept is used in the next folder, and has nothing of the first one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from apf_tasks.user_cache import cache_folder, copy_empty_database, keep_empty_database


def rows(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("select name from experiments")]


def test_a_copy_has_the_tables_and_not_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "cache"))
    first, second = tmp_path / "first.db", tmp_path / "folder" / "second.db"
    copy_empty_database("mlflow", first)
    assert not first.exists()
    with closing(sqlite3.connect(first)) as connection:
        connection.execute("create table experiments (name text)")
        connection.execute("insert into experiments values ('Default')")
        connection.commit()
    keep_empty_database("mlflow", first, ["delete from experiments"])
    assert rows(first) == ["Default"]
    copy_empty_database("mlflow", second)
    assert rows(second) == []
    copy_empty_database("mlflow", first)  # one that is there stays
    assert rows(first) == ["Default"]
    assert len(list(cache_folder().rglob("*"))) == 2
    assert [file.name for file in second.parent.iterdir()] == ["second.db"]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "file"))
    keep_empty_database("mlflow", tmp_path / "database", [])
    copy_empty_database("mlflow", tmp_path / "other")
    assert not (tmp_path / "other").exists()
