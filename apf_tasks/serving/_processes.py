"""Server processes: started, waited for, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apf_tasks.cache import store
from apf_tasks.errors import ApfError

START_SECONDS = 300
"""Time limit for a server to start: a new database alone may take a minute. pyproject.toml has the same value."""
Started = list[subprocess.Popen[bytes]]
"""What has to be stopped, however this ends."""


@contextmanager
def run_until_interrupted(started: Started, say: Callable[[str], object] = print) -> Iterator[Started]:
    """Within the block processes are started; then wait for Ctrl-C, and stop them cleanly. Raises ApfError."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has set Ctrl-C to be ignored
        signal.signal(number, signal.default_int_handler)
    try:
        yield started
        say("Ctrl-C stops what was started here.")
        while all(process.poll() is None for process in started):
            time.sleep(0.5)
        raise ApfError("server", "to keep running", "that it exited", f"See the logs under {store.root() / 'logs'}.")
    except KeyboardInterrupt:
        say("stopping")
    finally:
        stop(started)


def start(name: str, command: Sequence[str], started: Started, **variables: str) -> subprocess.Popen[bytes]:
    """Start a server in a process group of its own, its output in mlruns/logs; `started` knows it from then on.

    `variables`: of its environment, beside those of this process.
    """
    logs = store.root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = environment_with_venv() | variables
    if name == "prefect":
        environment.pop("PREFECT_API_URL", None)
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # seven idle processes otherwise
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    started.append(process)
    return process


def environment_with_venv() -> dict[str, str]:
    """The environment, with the programs of this Python first: MLflow calls `uvicorn`, activated environment or not."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def wait_for(process: subprocess.Popen[bytes], url: str, name: str) -> None:
    """Wait until a server answers. Raises ApfError when it does not."""
    if not wait_until_healthy(process, url, START_SECONDS):
        stop([process])
        log = store.root() / "logs" / f"{name}.log"
        raise ApfError(f"{name} server", f"an answer at {url} within {START_SECONDS} s", "none", f"See {log}.")


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, seconds: float) -> bool:
    """Wait until `url` answers; False when the process ends before, or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            time.sleep(0.3)
    return False


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes that lead a group each, with all their group."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there, else one the system chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    raise ApfError("network", "a free port", "none", "Close another server first.")
