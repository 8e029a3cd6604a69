"""Folders may be called anything: the address of a database names the same file to all who open it."""

from __future__ import annotations

from pathlib import Path

import pytest

from apf_tasks.tracking import lookup, tracker
from apf_tasks.tracking.databases import sqlite_address, sqlite_file
from flows.orchestration._temporary_server import put_prefect_database

ODD = "100%41 or?a=b#c'\"中 文 + & ;@x:1"


@pytest.mark.parametrize("name", ["plain", ODD, "50%", "中文"])
@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
def test_the_file_of_an_address_is_the_one_it_was_made_for(tmp_path: Path, name: str, driver: str) -> None:
    file = tmp_path / name / "mlflow.db"
    assert sqlite_file(sqlite_address(file, driver)) == file


@pytest.mark.parametrize("address", ["http://127.0.0.1/a%41", "postgresql://u@host/b", "sqlite://", ""])
def test_other_addresses_name_no_file(address: str) -> None:
    assert sqlite_file(address) is None


def test_all_is_recorded_in_the_folder_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / ODD / "mlruns"))
    run = tracker.new_run("here", "a run", {}, "token")
    assert lookup.run_page(run).endswith(f"/runs/{run}")
    tracker.client().log_text(run, "found again", "said.txt")
    assert [path.read_text() for path in (tmp_path / ODD).rglob("said.txt")] == ["found again"]
    put_prefect_database(tmp_path / ODD / "mlruns" / "prefect.db")
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert {path.name for path in (tmp_path / ODD / "mlruns").glob("*.db")} == {"mlflow.db", "prefect.db"}
