"""The settings apf needs from Prefect and MLflow, as defaults: what the user's environment says wins.

Prefect reads its settings from the environment when it is imported, and its server is a child that inherits it, so
`apply_defaults` comes first. pyproject.toml says the same under [tool.prefect], for the `prefect` command; that table
is honoured in the project's folder alone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import urllib.request
from importlib.util import find_spec

from apf_tasks.cache import store
from apf_tasks.errors import ApfError
from apf_tasks.serving._processes import START_SECONDS
from apf_tasks.tracking import tracker
from apf_tasks.tracking.databases import sqlite_address
from flows.orchestration._interrupts import resend_lost_sigint
from flows.orchestration._temporary_server import HOST, TemporaryServer

SERVER_FILE = "prefect_server.json"
"""Written by `apf up` while its server lives."""


def apply_defaults() -> None:
    """Set defaults for what is not set. Uses the server of `apf up` when one answers."""
    _speak_directly()
    database = store.root() / "prefect.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    defaults = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_SECONDS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": sqlite_address(database, "sqlite+aiosqlite"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "apf",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # plain functions log too
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ and (url := running_server()):
        os.environ["PREFECT_API_URL"] = url


def _speak_directly() -> None:
    """Servers of this machine are asked without the proxy of the environment, which may be anywhere.

    Libraries read the lower name first, and where it is set they ignore the other; `*` counts only alone.
    """
    named = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
    hosts = [host.strip() for host in named if host.strip()]
    if "*" in hosts:
        hosts = ["*"]
    elif HOST not in hosts:
        hosts.append(HOST)
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
    if "*" not in hosts:
        _check_socks()


def _check_socks() -> None:
    """Raises ApfError for a SOCKS proxy without socksio: httpx then makes no client, whatever NO_PROXY names."""
    proxies = urllib.request.getproxies()
    socks = [name for name in ("http", "https", "all") if proxies.get(name, "").lower().startswith("socks")]
    if socks and find_spec("socksio") is None:
        where, expected = f"{socks[0].upper()}_PROXY", "the package socksio, which a SOCKS proxy needs"
        do = 'Install it (`pip install "httpx[socks]"`), unset the variable, or set NO_PROXY=* to use no proxy at all.'
        raise ApfError(where, expected, "that it is not installed", do)


def running_server() -> str | None:
    """The API address of the server that `apf up` keeps, if it answers."""
    try:
        url = str(json.loads((store.root() / SERVER_FILE).read_text())["url"])
        with urllib.request.urlopen(f"{url}/health", timeout=2):
            return url
    except (OSError, ValueError, KeyError):
        return None


def warm_up_servers(training: bool = False, workers: bool = False) -> None:
    """Import Prefect and MLflow; a temporary server of Prefect's starts beside it, unless another one is named.

    To be called before a flow is imported. `training`: import what that needs too. `workers`: trials will be trained in
    processes of their own.
    """
    apply_defaults()
    server = None if _server_is_named() else TemporaryServer()
    if server is not None:
        logging.getLogger("apf").info("starting Prefect and MLflow (`apf up` keeps a server and avoids the wait)")
        server = _used_or_stopped(server)
    resend_lost_sigint()
    if workers:
        from flows.orchestration.task_runners import import_once

        import_once()
    tracker.client()
    if training:
        import apf_tasks.training.train  # noqa: F401
    if server is not None:
        server.wait()


def _server_is_named() -> bool:
    """Whether Prefect's settings name one already; that they do in a file is seen when they are read."""
    if "prefect" not in sys.modules:
        return "PREFECT_API_URL" in os.environ
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is not None


def _used_or_stopped(server: TemporaryServer) -> TemporaryServer | None:
    """Prefect's settings name the server from now on, unless they name another one or refuse temporary ones."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is not None or not settings.server.ephemeral.enabled:
        server.stop()
        return None
    os.environ["PREFECT_API_URL"] = server.url
    refresh_global_settings_context()
    return server


POOL = "local"
"""The work pool of the deployments in prefect.yaml."""
