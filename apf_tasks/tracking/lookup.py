"""Questions to MLflow without its client, whose import takes seconds: is a version there, where is the page of a run.

Read-only, on our own database or by MLflow's REST interface. Every answer that is not plain is left to the client.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import urlopen

from apf_tasks.tracking.databases import sqlite_file
from apf_tasks.tracking.tracker import registry_uri, tracking_uri

SECONDS = 5.0
"""How long an answer is waited for before the client is asked."""
DELETED = "Deleted_Internal"
"""The stage that MLflow gives to the row of a deleted version."""
LOCATION = "select coalesce(storage_location, source), current_stage from model_versions where name = ? and version = ?"
EXPERIMENT = "select experiment_id from runs where run_uuid = ?"
MODEL = "artifacts/model"
"""What was trained, inside a logged model."""


def version_is_there(name: str, version: int) -> bool | None:
    """Whether the registry has the version and its files; None where only MLflow's client can say."""
    try:
        return _has_files(_location(name, version))
    except (OSError, ValueError, KeyError, sqlite3.Error):
        return None


def run_page(run_id: str) -> str:
    """The address of a run's page in MLflow; where no server is known, what follows the address of one ("#/…").

    "" where only MLflow's client could say it.
    """
    uri = tracking_uri()
    try:
        if (database := sqlite_file(uri)) is not None:
            return f"#/experiments/{_in_database(database, EXPERIMENT, run_id)[0]}/runs/{run_id}"
        run = _ask(uri, "mlflow/runs/get", {"run_id": run_id})["run"]
        return f"{uri.rstrip('/')}/#/experiments/{run['info']['experiment_id']}/runs/{run_id}"
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error):
        return ""


def _location(name: str, version: int) -> str:
    """Where the files of a version are; "" when there is no such version. Raises where that cannot be said."""
    uri = registry_uri()
    if (database := sqlite_file(uri)) is not None:
        found = _in_database(database, LOCATION, name, version)
        return "" if found is None or found[1] == DELETED else str(found[0])
    if not uri.startswith(("http://", "https://")):
        raise ValueError(uri)
    try:
        answer = _ask(uri, "mlflow/model-versions/get-download-uri", {"name": name, "version": version})
    except HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND or json.load(error).get("error_code") != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""
    return str(answer["artifact_uri"])


def _in_database(database: Path, question: str, *asked: Any) -> Any:
    """The first row of the answer; None where there is none."""
    with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=SECONDS)) as connection:
        return connection.execute(question, asked).fetchone()


def _has_files(location: str) -> bool:
    """Whether there is a model. A store that is neither a folder nor behind the server is not asked."""
    split = urlsplit(location)
    if not location:
        return False
    if split.scheme in ("", "file"):
        folder = Path(unquote(split.path))
        return (folder / "MLmodel").is_file() and (folder / MODEL).is_dir() and any((folder / MODEL).iterdir())
    if split.scheme == "mlflow-artifacts" and not split.netloc:
        path = f"{split.path.strip('/')}/{MODEL}"
        return bool(_ask(tracking_uri(), "mlflow-artifacts/artifacts", {"path": path}).get("files"))
    return True


def _ask(uri: str, what: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    with urlopen(f"{uri.rstrip('/')}/api/2.0/{what}?{urlencode(asked)}", timeout=SECONDS) as answer:
        return dict(json.load(answer))
