"""One Prefect server for all processes of pytest-xdist: a start takes 20 s of a core."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apf_tasks.serving._processes import START_SECONDS
from flows.orchestration._temporary_server import put_prefect_database


@contextmanager
def shared_server(shared: Path) -> Iterator[None]:
    """Within the block Prefect's settings name the server that `shared` knows. Who starts it waits for the others."""
    address = shared / "prefect.url"
    with (shared / "prefect.starts").open("w") as starts, (shared / "prefect.uses").open("w") as uses:
        fcntl.flock(starts, fcntl.LOCK_EX)
        if address.exists():
            fcntl.flock(uses, fcntl.LOCK_SH)
            fcntl.flock(starts, fcntl.LOCK_UN)
            with _asked(address.read_text()):
                yield
            return
        with _started(Path(tempfile.mkdtemp(dir=shared))) as url:
            address.write_text(url)
            fcntl.flock(starts, fcntl.LOCK_UN)
            yield
            fcntl.flock(starts, fcntl.LOCK_EX)
            address.unlink()
            fcntl.flock(uses, fcntl.LOCK_EX)


@contextmanager
def _started(folder: Path) -> Iterator[str]:
    """Prefect's own way to serve tests, over a copied database."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing import utilities

    database = folder / "prefect-test.db"
    put_prefect_database(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        with utilities.prefect_test_harness(server_startup_timeout=START_SECONDS):
            yield str(PREFECT_API_URL.value())


@contextmanager
def _asked(url: str) -> Iterator[None]:
    """The server of another process."""
    from prefect import context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: url}):
        with context._temporary_global_settings_context(context.get_settings_context()):
            yield
        APILogWorker.instance().drain()  # while there is a server
        EventsWorker.drain_all()
