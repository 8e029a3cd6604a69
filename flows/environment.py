"""The settings apf needs from Prefect and MLflow, as defaults: what the user's environment says wins.

Prefect reads its settings when it is imported, so `prepare` comes first. pyproject.toml says the same under
[tool.prefect], for the `prefect` command; that table is honoured in the project's folder alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

from apf_tasks import store, tracker

LOST_SECONDS = 0.1
START_SECONDS = 300
"""A server has so long to start: a new database alone may take a minute. pyproject.toml says the same."""
SERVER_FILE = "prefect_server.json"
"""Written by `apf up` while its server lives."""


def prepare() -> None:
    """Set defaults for what is not set. Uses the server of `apf up` when one answers."""
    database = store.root() / "prefect.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    defaults = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_SECONDS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "apf",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # plain functions log too
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ and (url := running_server()):
        os.environ["PREFECT_API_URL"] = url


def running_server() -> str | None:
    """The API address of the server that `apf up` keeps, if it answers."""
    try:
        url = str(json.loads((store.root() / SERVER_FILE).read_text())["url"])
        with urllib.request.urlopen(f"{url}/health", timeout=2):
            return url
    except (OSError, ValueError, KeyError):
        return None


def console_logging() -> None:
    """apf's own lines on stderr; Prefect's are in its UI, and errors come up by themselves."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")  # pages of it when the server goes away
    logger = logging.getLogger("apf")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Lines(logging.Handler):
    """Plain lines on whatever sys.stderr is now: a progress bar puts itself in its place while it lives."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        print(record.getMessage(), file=sys.stderr, flush=True)


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """What this thread starts within the block never hears Ctrl-C, unless it unblocks the signal itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def repeat_lost_ctrl_c() -> None:
    """Ctrl-C that falls into a destructor, where Python prints any error and goes on, comes again a moment later.

    The hook is C code, into which another Ctrl-C cannot fall; a thread, which hears none, does the rest.
    """
    if sys.unraisablehook is not sys.__unraisablehook__:  # somebody else listens
        return
    errors: queue.SimpleQueue[sys.UnraisableHookArgs] = queue.SimpleQueue()

    def listen() -> None:
        while True:
            _repeat_or_print(errors.get())  # and forget it: it holds what was to be destroyed

    threading.Thread(target=listen, daemon=True).start()
    atexit.register(setattr, sys, "unraisablehook", sys.__unraisablehook__)  # the thread does not live as long
    sys.unraisablehook = errors.put


def _repeat_or_print(lost: sys.UnraisableHookArgs) -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        time.sleep(LOST_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)
    else:
        sys.__unraisablehook__(lost)


def start_together(workers: bool = False) -> None:
    """Start Prefect's temporary server while libraries are imported: each takes seconds, neither needs the other.

    `workers`: trials will be trained in processes of their own, which import the same.
    """
    from prefect.client.orchestration import get_client

    repeat_lost_ctrl_c()
    temporary = "PREFECT_API_URL" not in os.environ
    if temporary:
        logging.getLogger("apf").info("starting Prefect and MLflow (`apf up` keeps a server and saves the wait)")
        # a catalogue for the UI, which takes seconds to write; saving a block registers its kind
        os.environ.setdefault("PREFECT_SERVER_REGISTER_BLOCKS_ON_START", "false")

    def wake() -> None:
        # Ctrl-C in a terminal reaches the server too, to which the end of the run is still to be told
        with deaf_to_ctrl_c(), contextlib.suppress(Exception), get_client(sync_client=True) as prefect:
            prefect.hello()  # an error comes again, in full, when the flow asks

    waking = threading.Thread(target=wake, daemon=True)
    waking.start()
    if workers:
        from flows.task_runners import import_once

        import_once()
    tracker.client()
    if temporary and waking.is_alive():  # a core is free: what training needs, if anything is trained
        import apf_tasks.training  # noqa: F401
    waking.join()
