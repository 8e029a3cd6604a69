"""A registered model behind `mlflow models serve`: does it answer?"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from typing import Any

from rich.console import Console

from apf_tasks.artifacts import Split
from apf_tasks.data.rows import read_rows
from apf_tasks.family import get_family
from apf_tasks.params.experiment import Params
from apf_tasks.serving._processes import (
    environment_with_venv,
    free_port,
    run_until_interrupted,
    start,
    stop,
    wait_for,
    wait_until_healthy,
)
from apf_tasks.tracking import tracker
from apf_tasks.tracking.registry import find_version, input_columns

SERVED_ROWS = 2
SERVE_SECONDS = 180


def serving_problem(uri: str, split: Split, params: Params) -> str | None:
    """What goes wrong when the version is served and asked about test rows; None when it answers each."""
    columns = list(get_family(params.family).example)
    rows = read_rows(split.path / "test.parquet")[columns].head(SERVED_ROWS)
    port = free_port(0)
    serve = ["-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "--port", str(port)]
    environment = environment_with_venv() | {"MLFLOW_TRACKING_URI": tracker.tracking_uri()}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *serve], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            problem = _asked(process, f"http://127.0.0.1:{port}", rows.to_dict("split"), len(rows))
        finally:
            stop([process])
        if problem is None:
            return None
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
        return f"{problem}: {lines[-1] if lines else 'no output'}"


def serve_model(out: Console, model: str, host: str, port: int) -> None:
    """Serve NAME@ALIAS or NAME/VERSION until Ctrl-C. Raises RegistryError, ApfError."""
    uri = f"models:/{model.removeprefix('models:/')}"
    found = find_version(uri)
    with run_until_interrupted([], out.print) as started:
        command = ["models", "serve", "-m", uri, "--env-manager", "local", "--host", host, "--port", str(port)]
        process = start("serve", ["mlflow", *command], started)
        wait_for(process, f"http://127.0.0.1:{port}/ping", "serve")
        out.print(f"{found.name}/{found.version}  http://{host}:{port}/invocations")
        out.print(_try_it(uri, port), markup=False, highlight=False, soft_wrap=True)


def _try_it(uri: str, port: int) -> str:
    """A command that asks the served model about a row."""
    row = json.dumps({"dataframe_records": [dict.fromkeys(input_columns(uri), "…")]}, ensure_ascii=False)
    return f"curl -H 'Content-Type: application/json' -d '{row}' http://127.0.0.1:{port}/invocations"


def _asked(process: subprocess.Popen[bytes], url: str, rows: dict[str, Any], count: int) -> str | None:
    if not wait_until_healthy(process, f"{url}/ping", SERVE_SECONDS):
        return "the server ended" if process.poll() is not None else f"no answer within {SERVE_SECONDS} s"
    body = json.dumps({"dataframe_split": {"columns": rows["columns"], "data": rows["data"]}}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SERVE_SECONDS) as answer:
            found = len(json.load(answer)["predictions"])
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None if found == count else f"{found} answers to {count} rows"
