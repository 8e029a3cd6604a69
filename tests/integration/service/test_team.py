"""The servers of deploy/compose.yaml as processes: PostgreSQL, an S3 store, MLflow, Prefect, a worker, and a client."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.utilities.templating import apply_values
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from apf_tasks.serving._processes import free_port
from tests.integration.service.test_up import prefect
from tests.support.paths import PROJECT
from tests.support.projects import apf
from tests.support.tiny import review_rows, write_jsonl
from tests.support.waiting import answers, wait_until

BIN = Path(sys.executable).parent
WHOLE = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())
COMPOSE, CONFIGS = WHOLE["services"], WHOLE["configs"]
PORTS = {"postgres": "5432", "store": "9000", "mlflow": "5000", "prefect": "4200"}
POSTGRES = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), shutil.which("initdb") or "")
DEPLOYMENTS = {
    "deployments": [
        {
            "name": "reviews",
            "entrypoint": "flows/retrain.py:retrain",
            "work_pool": {"name": "local"},
            "parameters": {"params": "reviews"},
        }
    ]
}


class Team:
    """The services of the compose file, at addresses of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: str(free_port(0)) for name in PORTS}
        self.clients = self._environment("worker")

    def start(self, service: str, stack: ExitStack, folder: Path) -> subprocess.Popen[bytes]:
        """A service by its own command and environment; it ends with the stack."""
        command = [self._here(part) for part in COMPOSE[service]["command"]]
        if service == "store":
            command = ["rclone", *command]
        command = [str(BIN / command[0]) if (BIN / command[0]).exists() else command[0], *command[1:]]
        with (self.folder / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=self._environment(service), start_new_session=True
            )
        stack.callback(_end, process)
        return process

    def said(self, service: str) -> str:
        """By the service so far."""
        return (self.folder / f"{service}.log").read_text()

    def _environment(self, service: str) -> dict[str, str]:
        own = {name: self._here(value) for name, value in COMPOSE[service].get("environment", {}).items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PREFECT_WORKER_QUERY_SECONDS": "1"} | own

    def _here(self, text: str) -> str:
        """A value of the compose file with its variables filled in and addresses of this machine."""
        text = string.Template(text.replace("${APF_HOST:-localhost}", "localhost")).substitute(APF_PASSWORD="secret")
        for name, port in PORTS.items():
            text = re.sub(rf"(?<=[/@]){name}:{port}", f"127.0.0.1:{self.ports[name]}", text)
            if text in (port, f":{port}"):
                text = text.replace(port, self.ports[name])
        return str(self.folder / "objects") if text == "/data" else text


def _end(process: subprocess.Popen[bytes]) -> None:
    for one in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
        one.kill()
    process.wait()


@contextmanager
def postgres(port: str) -> Iterator[None]:
    """A PostgreSQL with the user and the databases of the compose file; it refuses to run as root."""
    user = "postgres" if os.geteuid() == 0 else None
    programs = Path(POSTGRES).parent
    with tempfile.TemporaryDirectory() as folder:
        shutil.chown(folder, user or os.geteuid())
        Path(folder, "password").write_text("secret")
        made = [
            "--username",
            "apf",
            "--auth",
            "scram-sha-256",
            "--pwfile",
            f"{folder}/password",
            "--pgdata",
            f"{folder}/data",
        ]
        subprocess.run([POSTGRES, *made], user=user, cwd=folder, capture_output=True, check=True)
        served = ["-D", f"{folder}/data", "-p", port, "-k", folder, "-c", "listen_addresses=127.0.0.1"]
        process = subprocess.Popen(
            [str(programs / "postgres"), *served], user=user, cwd=folder, stderr=subprocess.DEVNULL
        )
        try:
            address = f"postgresql://apf:secret@127.0.0.1:{port}/postgres"
            ready = [str(programs / "pg_isready"), "--quiet", "--dbname", address]
            wait_until("PostgreSQL answers", lambda: subprocess.run(ready, check=False).returncode == 0, 120)
            for line in CONFIGS["databases"]["content"].split(";")[:-1]:
                subprocess.run([str(programs / "psql"), "--quiet", "--command", line, address], check=True)
            yield
        finally:
            process.send_signal(signal.SIGINT)  # "fast": it does not wait for clients
            process.wait()


@pytest.fixture
def team(project: Path) -> Iterator[Team]:
    """All services; the worker works in the project's folder."""
    (project / "prefect.yaml").write_text(yaml.safe_dump(DEPLOYMENTS))
    (project / "objects" / "mlflow").mkdir(parents=True)
    found = Team(project)
    with ExitStack() as stack:
        stack.enter_context(postgres(found.ports["postgres"]))
        for service in ("store", "mlflow", "prefect"):
            found.start(service, stack, project)
        mlflow = found.clients["MLFLOW_TRACKING_URI"]
        wait_until("MLflow answers", lambda: answers(f"{mlflow}/health"), 300)
        wait_until("Prefect answers", lambda: answers(f"{found.clients['PREFECT_API_URL']}/health"), 300)
        assert answers(f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1", "mlflow:5000")  # not refused
        found.start("worker", stack, project)
        wait_until(
            "the worker is ready", lambda: "Worker" in found.said("worker") and "started" in found.said("worker"), 300
        )
        yield found


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRES, reason="needs PostgreSQL: apt-get install postgresql")
def test_two_addresses_are_all_that_a_client_needs(
    team: Team, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = team.clients | {"APF_MLRUNS": str(project / "mlruns")}
    done = prefect(environment, "deployment", "run", "retrain/reviews", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + team.said("worker")

    elsewhere = tmp_path / "a client"
    elsewhere.mkdir()
    write_jsonl(elsewhere / "rows.jsonl", review_rows(10))
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("APF_MLRUNS", str(elsewhere / "mlruns"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.clients["MLFLOW_TRACKING_URI"])
    capsys.readouterr()
    assert apf("registry", "ls", "--json") == 0
    models = json.loads(capsys.readouterr().out)
    assert [version["aliases"] for version in models["reviews"]] == [["challenger", "champion"]]
    assert apf("predict", "models:/reviews@champion", "rows.jsonl", "-o", "scored.jsonl") == 0
    assert len((elsewhere / "scored.jsonl").read_text().splitlines()) == 10
    kept = [path.name for path in (project / "objects" / "mlflow").rglob("*")]
    assert "model.safetensors" in kept, "the weights are in the object store"
    for folder in (project, elsewhere):  # nothing is recorded beside the servers
        assert not (folder / "mlruns" / "mlflow.db").exists()
        assert not (folder / "mlruns" / "artifacts").exists()


def test_the_kubernetes_template_makes_a_job() -> None:
    script = str(PROJECT / "deploy" / "kubernetes_pool.py")
    template = json.loads(subprocess.run([sys.executable, script], capture_output=True, check=True).stdout)
    properties = template["variables"]["properties"]
    asked = {name: variable.get("default") for name, variable in properties.items()}
    asked |= {"gpus": 2, "image": "registry.example/apf:7"}
    filled = apply_values(template["job_configuration"], {name: v for name, v in asked.items() if v is not None})
    pod = KubernetesWorkerJobConfiguration.model_validate(filled).job_manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "registry.example/apf:7"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "apf-mlruns"}
    assert pod["terminationGracePeriodSeconds"] == 120
