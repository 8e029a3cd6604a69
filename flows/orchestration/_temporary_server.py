"""Prefect's server for the length of one command, when no other is named: a process of its own, started at once.

Prefect would start one too, but only after it has imported all of its server into the command. Here the command
listens on a port and hands the socket to a process, this file run as a script, so requests wait in the socket until the
server takes them. The server's stdin is a pipe that nobody writes to: it ends with the command, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from apf_tasks.cache import store
from apf_tasks.errors import ApfError
from apf_tasks.serving._processes import START_SECONDS
from apf_tasks.tracking.databases import sqlite_address, sqlite_file
from apf_tasks.user_cache import put_empty_database

HOST = "127.0.0.1"
STOP_SECONDS = 10
"""How long a server may take to end."""
DATABASE_URL = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
SETTINGS = {
    "PREFECT_UI_ENABLED": "false",
    # a catalogue for the UI, which takes seconds to write; saving a block registers its kind
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
}
MIGRATE = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


class TemporaryServer:
    """The process, from its start on. `url` is the address of its API."""

    def __init__(self) -> None:
        self._log = store.root() / "logs" / "prefect.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with socket.create_server((HOST, 0)) as listener, self._log.open("ab") as log:
            self.url = f"http://{HOST}:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=SETTINGS | os.environ,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the command, which has to tell the server of its end
            )
        atexit.register(self.stop)

    def wait(self) -> None:
        """Until it answers. Raises ApfError when it does not."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=START_SECONDS):
                return
        except OSError as error:
            found, do = f"{type(error).__name__}: {error}", f"See {self._log}."
            raise ApfError("Prefect's server", f"an answer within {START_SECONDS} s", found, do) from error

    def stop(self) -> None:
        """End it, and wait for that."""
        atexit.unregister(self.stop)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(listener: socket.socket) -> None:
    """Be the server, in this process."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    if (database := sqlite_file(os.environ.get(DATABASE_URL, ""))) is not None:
        put_prefect_database(database)
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


def put_prefect_database(database: Path) -> None:
    """An empty database of Prefect's, where there is none."""
    put_empty_database("prefect", database, _migrate)


def _migrate(database: Path) -> None:
    environment = os.environ | {DATABASE_URL: sqlite_address(database, "sqlite+aiosqlite")}
    subprocess.run([sys.executable, "-P", "-c", MIGRATE], env=environment, stdin=subprocess.DEVNULL, check=True)


def _end_with_stdin() -> None:
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
