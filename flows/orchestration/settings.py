"""The settings apf needs from Prefect and MLflow, as defaults: what the user's environment says wins.

Prefect reads its settings when it is imported, so `apply_defaults` comes first. pyproject.toml says the same under
[tool.prefect], for the `prefect` command; that table is honoured in the project's folder alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import urllib.request

from apf_tasks.cache import store
from apf_tasks.serving._processes import START_SECONDS
from apf_tasks.tracking import client as tracker
from apf_tasks.user_cache import copy_empty_database, keep_empty_database
from flows.orchestration._interrupts import resend_lost_sigint, sigint_blocked

SERVER_FILE = "prefect_server.json"
"""Written by `apf up` while its server lives."""


def apply_defaults() -> None:
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


def warm_up_servers(workers: bool = False) -> None:
    """Start Prefect's temporary server while libraries are imported: each takes seconds, neither needs the other.

    `workers`: trials will be trained in processes of their own, which import the same.
    """
    from prefect.client.orchestration import get_client

    resend_lost_sigint()
    temporary = "PREFECT_API_URL" not in os.environ
    database = store.root() / "prefect.db"
    fresh = temporary and not database.exists()
    if temporary:
        logging.getLogger("apf").info("starting Prefect and MLflow (`apf up` keeps a server and avoids the wait)")
        # a catalogue for the UI, which takes seconds to write; saving a block registers its kind
        os.environ.setdefault("PREFECT_SERVER_REGISTER_BLOCKS_ON_START", "false")
        copy_empty_database("prefect", database)

    def wake() -> None:
        # Ctrl-C in a terminal reaches the server too, to which the end of the run is still to be told
        with sigint_blocked(), contextlib.suppress(Exception), get_client(sync_client=True) as prefect:
            prefect.hello()  # an error comes again, in full, when the flow asks
            if fresh:  # no flow has run yet
                keep_empty_database("prefect", database, ())

    waking = threading.Thread(target=wake, daemon=True)
    waking.start()
    if workers:
        from flows.orchestration.task_runners import import_once

        import_once()
    tracker.client()
    if temporary and waking.is_alive():  # a core is free: what training needs, if anything is trained
        import apf_tasks.training.train  # noqa: F401
    waking.join()


POOL = "local"
"""The work pool of the deployments in prefect.yaml."""
