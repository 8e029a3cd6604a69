"""The built wheel in a folder of somebody else, who has a package called `flows` already."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

from apf_tasks.tracking.tracker import put_mlflow_database
from flows.orchestration._temporary_server import put_prefect_database
from tests.support.paths import PROJECT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment with the wheel; the libraries are those of this one, this checkout is not in it."""
    build = ["wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(tmp_path), str(PROJECT)]
    subprocess.run([sys.executable, *PIP, *build], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    found = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = next(tmp_path.glob("apf-*.whl"))
    install = ["install", "--no-deps", "--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([sys.executable, *PIP[:2], "--python", str(found), *PIP[2:], *install], check=True)
    return found


def test_init_run_up_and_a_deployment(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "__init__.py").write_text("raise ImportError('these are mine')\n")
    put_mlflow_database(folder / "mlruns" / "mlflow.db")
    put_prefect_database(folder / "mlruns" / "prefect.db")
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PREFECT_", "PYTHONPATH", "APF_"))}
    environment = kept | {"PREFECT_WORKER_QUERY_SECONDS": "1"}

    def ask(*command: str, **more: str) -> str:
        told = [str(python), "-m", *command] if command[0] == "prefect" else [str(python.with_name("apf")), *command]
        done = subprocess.run(told, cwd=folder, env=environment | more, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    named = next(python.parents[1].rglob("apf-*.dist-info")) / "top_level.txt"
    assert named.read_text().split() == ["apf_flows", "apf_tasks"]
    ask("init")
    assert (folder / "docs" / "PARAMS.md").is_file()
    assert "fine" in ask("check", "example")
    assert "models:/example/1" in ask("run", "example", "search={}", "train.epochs=2")
    log = folder / "up.log"
    with log.open("w") as lines:
        apf = [str(python.with_name("apf")), "up"]
        up = subprocess.Popen(apf, cwd=folder, env=environment, stdout=lines, stderr=subprocess.STDOUT)
    try:
        wait_until("`apf up` is ready", lambda: "Ctrl-C stops" in log.read_text() or up.poll() is not None, 400)
        assert up.poll() is None, log.read_text()
        server = re.search(r"Prefect +(http://\S+)", log.read_text())
        assert server is not None
        started = ("prefect", "deployment", "run", "retrain/example", "--watch")
        overrides = '{"search": {}, "train.epochs": 3, "gate.beat_champion": false, "gate.serves": false}'
        ask(*started, "--param", f"overrides={overrides}", PREFECT_API_URL=f"{server[1]}/api")
    finally:
        for process in [up, *psutil.Process(up.pid).children(recursive=True)] if up.poll() is None else []:
            process.kill()
        up.wait()
    assert len(json.loads(ask("registry", "show", "example", "--json"))) == 2


def test_windows_is_told_about_wsl() -> None:
    script = "import sys; sys.platform = 'win32'; from apf_tasks.command import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "use it in WSL" in done.stderr
    assert "Traceback" not in done.stderr
