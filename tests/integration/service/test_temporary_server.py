"""Prefect's server of one command: it answers, knows what ran, and ends with the command, however that ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.request import proxy_bypass

import psutil
import pytest

from apf_tasks.errors import ApfError
from apf_tasks.tracking import tracker
from flows.orchestration._temporary_server import DATABASE_URL, TemporaryServer, put_prefect_database
from flows.orchestration.settings import SERVER_FILE, apply_defaults
from tests.integration.service.test_up import BIN
from tests.support.paths import PROJECT
from tests.support.waiting import answers, wait_until

COMMAND = """
import sys, time
from flows.orchestration._temporary_server import TemporaryServer
from flows.orchestration.settings import apply_defaults

apply_defaults()
server = TemporaryServer()
if sys.argv[1] == "answers":
    server.wait()
print(server.url, server._process.pid, flush=True)
time.sleep(600)
"""
SMOKE = PROJECT / "params" / "smoke" / "sentiment.yaml"


class Healthy(BaseHTTPRequestHandler):
    """Answers as a server does that lives."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def without_prefect() -> dict[str, str]:
    """The environment of a command of its own: Prefect's settings there do not name the server of the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Of a command of its own, on a machine that reaches others by a proxy."""
    for name in set(os.environ) - set(without_prefect()):
        monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    apply_defaults()
    return monkeypatch


@pytest.mark.usefixtures("settings")
def test_it_answers_at_the_address_that_is_known_before_and_ends_when_asked(mlruns: Path) -> None:
    put_prefect_database(mlruns / "prefect.db")
    server = TemporaryServer()
    try:
        server.wait()
        assert answers(f"{server.url}/health")
    finally:
        server.stop()
    assert server._process.returncode in (0, -signal.SIGTERM), (mlruns / "logs" / "prefect.log").read_text()
    assert not answers(f"{server.url}/health")


def test_one_that_cannot_start_is_an_error_that_names_its_log(mlruns: Path, settings: pytest.MonkeyPatch) -> None:
    settings.setenv(DATABASE_URL, "nonsense")
    server = TemporaryServer()
    with pytest.raises(ApfError, match=r"Prefect's server: expected an answer.*logs/prefect\.log"):
        server.wait()
    server.stop()
    assert "ArgumentError" in (mlruns / "logs" / "prefect.log").read_text()


@pytest.mark.parametrize(
    ("said", "then"),
    [
        ({"NO_PROXY": "mlflow.example"}, "mlflow.example,127.0.0.1"),
        ({"no_proxy": "a.example", "NO_PROXY": "b.example"}, "a.example,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*"),
        ({"no_proxy": "127.0.0.1"}, "127.0.0.1"),
        ({}, "127.0.0.1"),
    ],
)
def test_hosts_that_are_to_be_asked_directly_still_are(
    settings: pytest.MonkeyPatch, said: dict[str, str], then: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        settings.delenv(name)
    for name, value in said.items():
        settings.setenv(name, value)
    apply_defaults()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == then
    assert all(proxy_bypass(host) for host in then.replace("*", "any.example").split(","))


@pytest.mark.skipif(find_spec("socksio") is not None, reason="socksio is installed: SOCKS proxies are spoken to")
def test_a_socks_proxy_that_nothing_can_speak_to_is_an_error_before_anything_starts(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:7890")
    with pytest.raises(ApfError, match=r"ALL_PROXY: expected the package socksio") as raised:
        apply_defaults()
    assert "secret" not in str(raised.value)
    for name in ("no_proxy", "NO_PROXY"):
        settings.setenv(name, "*")
    apply_defaults()


@pytest.mark.usefixtures("settings")
def test_the_server_that_apf_up_keeps_is_found_where_a_proxy_is_set(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/api"
        (mlruns / SERVER_FILE).write_text(json.dumps({"url": url}))
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        apply_defaults()
        server.shutdown()
    assert os.environ.pop("PREFECT_API_URL") == url


@pytest.mark.slow
@pytest.mark.parametrize("when", ["starts", "answers"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_a_command_that_is_killed(mlruns: Path, number: signal.Signals, when: str) -> None:
    put_prefect_database(mlruns / "prefect.db")
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, when], stdout=subprocess.PIPE, text=True, env=without_prefect()
    ) as command:
        assert command.stdout is not None
        url, pid = command.stdout.readline().split()
        server = psutil.Process(int(pid))
        assert server.is_running()
        command.send_signal(number)
    wait_until("the server ends", lambda: not server.is_running(), 60)
    assert not answers(f"{url}/health")


@pytest.mark.slow
def test_two_first_runs_at_once_in_a_folder_both_end_well(mlruns: Path, tmp_path: Path) -> None:
    environment = without_prefect() | {"APF_CACHE": str(tmp_path / "cache")}
    runs = [
        subprocess.Popen([str(BIN / "apf"), "run", str(SMOKE), f"train.epochs={epochs}"], env=environment, cwd=PROJECT)
        for epochs in (1, 2)
    ]
    assert [run.wait(1200) for run in runs] == [0, 0]
    place = tracker.experiment_id("sentiment")
    found = tracker.client().search_runs([place], "tags.`apf.kind` = 'pipeline'")
    assert [run.info.status for run in found] == ["FINISHED"] * 2
    with closing(sqlite3.connect(mlruns / "prefect.db")) as database:
        states = database.execute("select name, state_type from flow_run").fetchall()
    assert states == [(str(SMOKE), "COMPLETED")] * 2
    assert len(list((tmp_path / "cache" / "databases").glob("*.db"))) == 2
