"""The tracker or Prefect's server away, slow, or talking nonsense: at the start, in the middle, at the end.

A proxy stands before a real server and misbehaves from a moment on. A case went well when the command ended by itself,
well or with a readable error; when the same command, with the server well again, ended as the undisturbed run; and when
there is one registered version and no run was left running.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from apf_tasks.serving._processes import free_port
from tests.campaign.common import (
    PATIENCE,
    SMOKE,
    Cases,
    Figure,
    Workbench,
    differences,
    last_line,
    rows_of,
    send,
    undisturbed,
)
from tests.support.paths import PROJECT
from tests.support.tracking_server import Server

COMMAND = ("run", SMOKE, "train.epochs=60")
NONSENSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
ERROR = b"HTTP/1.1 500 Error\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
ANSWERS = {"refuses": b"", "nonsense": NONSENSE, "errors": ERROR}


class Case(NamedTuple):
    """Which server misbehaves how: from when on (what the command says then), and for how many seconds; 0: for ever."""

    which: str
    how: str
    when: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.which} {self.how} from {self.when or 'the start'}" + (
            f" for {self.seconds:.0f} s" * bool(self.seconds)
        )


CASES = [
    Case("tracker", "refuses", "train_", 20),
    Case("prefect", "refuses", "train_", 20),
    *(Case("tracker", how, "", 0) for how in ("refuses", "errors", "hangs", "nonsense")),
    *(Case("tracker", how, "train_", 20) for how in ("errors", "hangs", "nonsense")),
    *(Case("tracker", how, "evaluate", 0) for how in ("refuses", "errors")),
    *(Case("prefect", how, "", 0) for how in ("refuses", "hangs")),
    *(Case("prefect", how, "train_", 20) for how in ("errors", "hangs")),
    Case("prefect", "refuses", "evaluate", 0),
]
QUICK_CASES = 1


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of cases in which nothing was lost."""
    cases = Cases("times that a server was away lost nothing")
    expected = undisturbed(bench, *COMMAND[1:])
    for number, one in enumerate(CASES[:QUICK_CASES] if quick else CASES):
        cases.add(str(one), disturbed(bench, bench.folder / f"case-{number}", one, expected))
    return cases.figure


def disturbed(bench: Workbench, folder: Path, one: Case, expected: Path) -> list[str]:
    """What went wrong."""
    folder.mkdir()
    serving = tracker(folder) if one.which == "tracker" else prefect(bench, folder)
    with serving as port:
        proxy = Proxy(port)
        address = f"http://127.0.0.1:{proxy.port}"
        more = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
        more |= {"MLFLOW_TRACKING_URI": address} if one.which == "tracker" else {"PREFECT_API_URL": f"{address}/api"}
        first = while_away(bench, folder, one, proxy, more)
        proxy.how = "passes"
        ended = bench.run(folder, *COMMAND, **more)
        bench.run(folder, "reconcile", **more)
        proxy.close()
    if one.which == "tracker":
        (folder / "server.db").rename(folder / "mlflow.db")
    if ended.returncode:
        return [*first, f"well again, and: {last_line(ended)}"]
    versions = [version for (version,) in rows_of(folder / "mlflow.db", "select version from model_versions")]
    wrong = [] if versions == [1] else [f"registered versions: {versions}"]
    return [*first, *differences(expected, folder), *wrong, *bench.orphans(20)]


def while_away(bench: Workbench, folder: Path, one: Case, proxy: Proxy, more: dict[str, str]) -> list[str]:
    """The command while the server misbehaves."""
    log = folder / "first.log"
    proxy.how = "passes" if one.when else one.how
    process = bench.start(folder, *COMMAND, log=log, **more)
    while one.when and process.poll() is None and one.when not in log.read_text(errors="replace"):
        time.sleep(0.1)
    proxy.how = one.how
    if one.seconds:
        time.sleep(one.seconds)
        proxy.how = "passes"
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        send(process, signal.SIGKILL, "group")
        process.wait()
        return ["it did not end"]
    return ["a traceback"] if "Traceback" in log.read_text(errors="replace") else []


@contextmanager
def tracker(folder: Path) -> Iterator[int]:
    """A real `mlflow server`, within the block; its port."""
    server = Server(folder)
    try:
        yield server.port
    finally:
        server.send(signal.SIGKILL)


@contextmanager
def prefect(bench: Workbench, folder: Path) -> Iterator[int]:
    """A real server of Prefect, within the block; its port."""
    port = free_port(0)
    environment = bench.environment(folder) | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'server-prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "APF_CAMPAIGN": "a server",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=environment,
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/api/health")
        yield port
    finally:
        send(process, signal.SIGKILL, "group")
        process.wait()


def wait_until_it_answers(url: str) -> None:
    """Raises RuntimeError when it never does."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"no answer from {url}")


class Proxy:
    """Passes connections on to a server of this machine, or misbehaves as `how` says."""

    def __init__(self, target: int) -> None:
        self.how, self._target = "passes", target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Nobody is served any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            while self.how == "hangs":
                time.sleep(0.5)
            if self.how in ANSWERS:
                client.settimeout(5)
                try:
                    client.recv(1 << 16)
                    client.sendall(ANSWERS[self.how])
                except OSError:
                    return
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # The target has ended: who asked finds a closed connection, as from any proxy.
                return
            with server:
                back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
                back.start()
                self._pass_on(client, server)
                back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        """Until an end closes it, or the proxy misbehaves."""
        try:
            while (piece := source.recv(1 << 16)) and self.how == "passes":
                sink.sendall(piece)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
