"""Every test gets its own mlruns/ and no network; one Prefect server serves them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@pytest.fixture(autouse=True)
def mlruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh store, tracker and registry for each test."""
    folder = tmp_path / "mlruns"
    monkeypatch.setenv("APF_MLRUNS", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of all processes of pytest-xdist. apf keeps its empty databases there: migrations take seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APF_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def prefect_server(shared: Path) -> Iterator[None]:
    """A real Prefect server over a temporary database, for tests that run stages as tasks."""
    from flows.orchestration.settings import apply_defaults

    os.environ["APF_MLRUNS"] = os.environ.get("APF_MLRUNS", "/tmp/apf-tests")
    os.environ["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] = "false"  # saving a block registers it
    apply_defaults()
    from tests.support.prefect_server import shared_server

    with shared_server(shared):
        yield
