"""A project folder with params, rows and this project's flows, for tests with real servers and workers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from apf_tasks.tracking import outbox
from apf_tasks.tracking.tracker import put_mlflow_database
from flows.orchestration._temporary_server import put_prefect_database
from tests.support.paths import PROJECT
from tests.support.projects import write_project
from tests.support.tiny import tiny_bert
from tests.support.tracking_server import Proxy, Server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made, and the working directory. A test adds its prefect.yaml."""
    put_prefect_database(tmp_path / "mlruns" / "prefect.db")
    split = {"validation_fraction": 0.2, "test_fraction": 0.4, "near_duplicate_similarity": None}
    base, train = tiny_bert(tmp_path / "tiny"), {"epochs": 2, "batch_size": 16}
    write_project(tmp_path, base, split=split, train=train, gate={"serves": False})
    (tmp_path / "params").mkdir()
    (tmp_path / "reviews.yaml").rename(tmp_path / "params" / "reviews.yaml")
    (tmp_path / "flows").symlink_to(PROJECT / "flows")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    put_mlflow_database(tmp_path / "server.db")
    found = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(outbox, "LAST_SECONDS", 1.0)
    yield found
    found.send(signal.SIGKILL)


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What this process takes for the tracker; it stands before a real one."""
    found = Proxy(server.port)
    with found.listening() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield found
