"""Prefect's server dies while a model is trained, or Ctrl-C in a terminal reaches it and the workers too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from apf_tasks.cache import store
from apf_tasks.serving._processes import free_port
from apf_tasks.tracking.registry import aliases_of
from apf_tasks.tracking.tracker import put_mlflow_database
from flows.orchestration import settings
from flows.orchestration._interrupts import resend_lost_sigint
from flows.orchestration._temporary_server import put_prefect_database
from tests.integration.service.test_up import BIN
from tests.support.projects import apf
from tests.support.waiting import answers, wait_until


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_outlives_prefects_server(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_prefect_database(project / "home" / "prefect.db")
    put_mlflow_database(project / "mlruns" / "mlflow.db")
    port = free_port(0)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    log, said = project / "prefect.log", project / "run.log"
    with log.open("w") as lines:
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
        environment = kept | {"PREFECT_HOME": str(project / "home"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        server = subprocess.Popen(command, stdout=lines, stderr=lines, env=environment, start_new_session=True)
    try:
        wait_until("Prefect answers", lambda: answers(f"http://127.0.0.1:{port}/api/health"), 300)
        with said.open("w") as lines:
            away = kept | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_CLIENT_MAX_RETRIES": "1"}
            command = [str(BIN / "apf"), "run", "params/reviews.yaml", "train.epochs=8"]
            run = subprocess.Popen(command, stdout=lines, stderr=lines, env=away)
        wait_until("a training runs", lambda: "train_model runs" in said.read_text() or run.poll() is not None, 300)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert run.wait(timeout=1200) == 1, said.read_text()
    assert aliases_of("reviews") == {"champion": 1, "challenger": 1}, said.read_text()
    assert "does not answer" in said.read_text().splitlines()[-1]
    assert "Traceback" not in said.read_text()
    capsys.readouterr()
    assert apf("run", "params/reviews.yaml", "train.epochs=8") == 0  # by the server of the tests
    assert "nothing was computed" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_reaches_all_processes_and_ends_in_one_line(project: Path) -> None:
    put_mlflow_database(project / "mlruns" / "mlflow.db")
    said = project / "run.log"
    command = [str(BIN / "apf"), "run", "params/reviews.yaml", "train.epochs=400", "search.parallel=2"]
    command += ["search.space={train.learning_rate: [1e-3, 2e-3]}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with said.open("w") as lines:
        run = subprocess.Popen(
            command, stdout=lines, stderr=lines, env=kept, start_new_session=True, preexec_fn=hear_ctrl_c
        )
    try:
        wait_until("a worker runs", lambda: any(store.root().glob(".workers-*/*.json")) or run.poll() is not None, 300)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=1200) == 130, said.read_text()
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert "The same command continues where it was." in said.read_text().splitlines()[-1]
    assert "Traceback" not in said.read_text()


class Asked:
    """Ctrl-C falls into its destructor."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def hears_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_in_a_destructor_comes_again_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    resend_lost_sigint()
    Asked()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_cannot_fall_into_what_hears_the_lost_one(capsys: pytest.CaptureFixture[str]) -> None:
    def ask_again(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == settings.__file__:
            signal.raise_signal(signal.SIGINT)

    resend_lost_sigint()
    sys.setprofile(ask_again)  # of this thread
    try:
        Asked()
    finally:
        sys.setprofile(None)
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert capsys.readouterr().err == ""


def hear_ctrl_c() -> None:
    """As a terminal's shell starts a command; what starts these tests may ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
