"""Prefect's server dies while a model is trained: the model is registered all the same, and the next run shows it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apf_tasks.registry import aliases_of
from flows.servers import free_port
from tests.databases import Databases
from tests.projects import apf
from tests.service.test_team import answers
from tests.service.test_up import BIN, wait_until


@pytest.mark.usefixtures("prefect_server")
def test_a_run_outlives_prefects_server(
    project: Path, databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    databases.prefect(project / "home" / "prefect.db")
    databases.mlflow(project / "mlruns" / "mlflow.db")
    port = free_port(0)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    log, said = project / "prefect.log", project / "run.log"
    with log.open("w") as lines:
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        environment = kept | {"PREFECT_HOME": str(project / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        server = subprocess.Popen(command, stdout=lines, stderr=lines, env=environment, start_new_session=True)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/api/health"), 300)
        with said.open("w") as lines:
            away = kept | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_CLIENT_MAX_RETRIES": "1"}
            command = [str(BIN / "apf"), "run", "params/reviews.yaml", "train.epochs=8"]
            run = subprocess.Popen(command, stdout=lines, stderr=lines, env=away)
        wait_until(lambda: "train_model runs" in said.read_text() or run.poll() is not None, 300)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert run.wait(timeout=400) == 1, said.read_text()
    assert aliases_of("reviews") == {"champion": 1, "challenger": 1}, said.read_text()
    assert "does not answer" in said.read_text().splitlines()[-1]
    assert "Traceback" not in said.read_text()
    capsys.readouterr()
    assert apf("run", "params/reviews.yaml", "train.epochs=8") == 0  # by the server of the tests
    assert "nothing was computed" in capsys.readouterr().out
