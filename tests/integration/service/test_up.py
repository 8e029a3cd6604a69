"""`apf up`: servers, deployments, a worker; retraining by hand, by a schedule and by an event, in real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest
import yaml

from apf_tasks.tracking.registry import aliases_of
from apf_tasks.tracking.tracker import put_mlflow_database
from tests.support.tiny import review_rows, write_jsonl
from tests.support.waiting import wait_until

BIN = Path(sys.executable).parent
EVENT = """
from time import sleep
from prefect.events import emit_event

emit_event("apf.data.changed", {"prefect.resource.id": "apf.experiment.reviews"})
sleep(3)  # it is sent from a thread
"""


def deployments() -> dict[str, Any]:
    retrain = {"entrypoint": "flows/retrain.py:retrain", "work_pool": {"name": "local"}}
    given = {"parameters": {"params": "reviews"}}
    trigger = {
        "type": "event",
        "match": {"prefect.resource.id": "apf.experiment.reviews"},
        "expect": ["apf.data.changed"],
        "parameters": {"params": "reviews", "overrides": {"train.learning_rate": 4e-3, "train.epochs": 8}},
    }
    asked = {"parameters": {"params": "reviews", "dry_run": True}}
    clock = {"interval": 45, "active": True, "slug": "often"}
    return {
        "deployments": [
            {**retrain, **given, "name": "reviews", "triggers": [trigger]},
            {**retrain, **asked, "name": "often", "schedules": [clock]},
        ]
    }


@pytest.fixture
def up(project: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running `apf up`, and the environment of its clients."""
    put_mlflow_database(project / "mlruns" / "mlflow.db")
    (project / "prefect.yaml").write_text(yaml.safe_dump(deployments()))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
    with (project / "up.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / "apf"), "up"], stdout=log, stderr=subprocess.STDOUT, env=environment, text=True
        )
    try:
        said = project / "up.log"
        wait_until("`apf up` is ready", lambda: "Ctrl-C stops" in said.read_text() or process.poll() is not None, 1200)
        assert process.poll() is None, said.read_text()
        prefect = re.search(r"Prefect +(http://\S+)", said.read_text())
        assert prefect is not None
        yield process, environment | {"PREFECT_API_URL": f"{prefect[1]}/api"}
    finally:
        tree = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for one in tree:
            one.kill()
        process.wait()


def prefect(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "prefect"), *command], env=environment, text=True, capture_output=True, check=False
    )


def ask(environment: dict[str, str], way: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Prefect's server, without another process that imports Prefect first. It says 503 while its database is busy."""
    sent = None if body is None else json.dumps(body).encode()
    url, kind = environment["PREFECT_API_URL"] + path, {"Content-Type": "application/json"}
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, sent, kind, method=way), timeout=600) as answer:
                return json.loads(answer.read() or "null")
        except HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        time.sleep(1)


def id_of(environment: dict[str, str], deployment: str) -> str:
    """Of a deployment of retrain."""
    return str(ask(environment, "GET", f"/deployments/name/retrain/{deployment}")["id"])


def runs_of(environment: dict[str, str], deployment: str) -> int:
    """Completed flow runs of a deployment of retrain."""
    wanted = {"id": {"any_": [id_of(environment, deployment)]}}
    completed = {"state": {"name": {"any_": ["Completed"]}}}
    return int(ask(environment, "POST", "/flow_runs/count", {"deployments": wanted, "flow_runs": completed}))


@pytest.mark.slow
def test_from_one_command_to_a_retrained_champion(
    project: Path, up: tuple[subprocess.Popen[str], dict[str, str]]
) -> None:
    process, environment = up
    said = (project / "up.log").read_text()
    assert "Deployments 2" in said
    mlflow = re.search(r"MLflow +(http://\S+)", said)
    assert mlflow is not None
    commands = [" ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)]
    assert len([command for command in commands if re.search(r"prefect[ .]server", command)]) == 1, commands
    with urllib.request.urlopen(mlflow[1]) as page:
        assert "MLflow" in page.read().decode()

    wait_until("the schedule starts a run", lambda: runs_of(environment, "often") > 0, 1200)
    ask(environment, "PATCH", f"/deployments/{id_of(environment, 'often')}", {"paused": True})

    first = prefect(environment, "deployment", "run", "retrain/reviews", "--watch")
    assert first.returncode == 0, first.stdout + first.stderr
    assert aliases_of("reviews") == {"champion": 1, "challenger": 1}

    wrong = prefect(environment, "deployment", "run", "retrain/reviews", "-p", "overrides=7", "--watch")
    assert wrong.returncode != 0
    write_jsonl(project / "rows.jsonl", review_rows(400))
    subprocess.run([sys.executable, "-c", EVENT], env=environment, check=True)
    wait_until("two retrainings have started", lambda: runs_of(environment, "reviews") == 2, 1200)
    assert aliases_of("reviews") == {"champion": 2, "previous": 1, "challenger": 2}

    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=1200) == 0
    assert not [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]
    assert not (project / "mlruns" / "prefect_server.json").exists()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(mlflow[1], timeout=10)
