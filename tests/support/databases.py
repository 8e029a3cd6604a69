"""Databases of MLflow and Prefect, made by them once for all tests: migrations take seconds, a copy takes none."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apf_tasks.cache import store
from apf_tasks.tracking import client as tracker

PREFECT = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


class Databases:
    """Originals in a folder that all workers of pytest-xdist share, and copies of them."""

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self._client: Callable[[], Any] = tracker.client

    def mlflow(self, database: Path) -> None:
        """An MLflow database there, unless there is one."""
        self._put(database, self.shared / "originals" / "mlflow.db", self._make_mlflow)

    def prefect(self, database: Path) -> None:
        """A database of Prefect's server there, unless there is one."""
        self._put(database, self.shared / "originals" / "prefect.db", _make_prefect)

    def client(self) -> Any:
        """What tracker.client gives, on such a copy where it would make a database."""
        database = store.root() / "mlflow.db"
        if tracker.tracking_uri() == f"sqlite:///{database}":
            self.mlflow(database)
        return self._client()

    def _make_mlflow(self, database: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("APF_MLRUNS", str(database.parent))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            self._client()

    def _put(self, database: Path, original: Path, make: Callable[[Path], None]) -> None:
        if database.exists():
            return
        original.parent.mkdir(exist_ok=True)
        with original.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not original.exists():
                make(original)
            if not database.exists():
                database.parent.mkdir(parents=True, exist_ok=True)
                copy = database.with_suffix(".copy")
                shutil.copyfile(original, copy)
                copy.rename(database)


def _make_prefect(database: Path) -> None:
    environment = os.environ | {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}"}
    try:
        subprocess.run([sys.executable, "-c", PREFECT], env=environment, check=True)
    except BaseException:
        database.unlink(missing_ok=True)
        raise
