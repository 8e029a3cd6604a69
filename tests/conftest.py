"""Every test gets its own mlruns/ and no network; one Prefect server serves the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
PROJECT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def mlruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh store, tracker and registry for each test."""
    folder = tmp_path / "mlruns"
    monkeypatch.setenv("APF_MLRUNS", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real Prefect server over a temporary database, for tests that run stages as tasks."""
    from flows.environment import prepare

    os.environ["APF_MLRUNS"] = os.environ.get("APF_MLRUNS", "/tmp/apf-tests")
    prepare()
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
