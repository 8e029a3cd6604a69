"""A project folder with params, rows and this project's flows, for tests with real servers and workers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apf_tasks.tracking import outbox
from tests.support.databases import Databases
from tests.support.paths import PROJECT
from tests.support.tiny import review_rows, tiny_bert, write_jsonl
from tests.support.tracking_server import Proxy, Server


@pytest.fixture
def project(tmp_path: Path, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made, and the working directory. A test adds its prefect.yaml."""
    databases.prefect(tmp_path / "mlruns" / "prefect.db")
    write_jsonl(tmp_path / "rows.jsonl", review_rows(200))
    (tmp_path / "params").mkdir()
    params = {
        "family": "sentiment",
        "data": {"source": "rows.jsonl"},
        "split": {"validation_fraction": 0.2, "test_fraction": 0.4, "near_duplicate_similarity": None},
        "model": {"base": str(tiny_bert(tmp_path / "tiny")), "max_tokens": 48},
        "train": {"epochs": 2, "batch_size": 16},
        "runtime": {"precision": "fp32"},
        "test": {"resamples": 200, "before_fine_tuning": False},
        "gate": {"serves": False},
    }
    (tmp_path / "params" / "reviews.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "flows").symlink_to(PROJECT / "flows")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(tmp_path: Path, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    databases.mlflow(tmp_path / "server.db")
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
