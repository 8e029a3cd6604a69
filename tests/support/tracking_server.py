"""A real `mlflow server` that can be killed, and a proxy before it that refuses, or loses answers."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from apf_tasks.serving._processes import free_port

BIN = Path(sys.executable).parent
START_SECONDS = 1200


class Server:
    """An `mlflow server` that can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port(0)
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Until it answers."""
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{self.folder}/server.db",
        ]
        command += ["--artifacts-destination", str(self.folder / "files"), "--workers", "1", "--port", str(self.port)]
        environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # many idle processes otherwise
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                said = (self.folder / "server.log").read_text()
                assert self.process.poll() is None, f"expected a server that runs, found it ended:\n{said}"
                assert time.monotonic() < deadline, f"expected an answer within {START_SECONDS} s, found none:\n{said}"
                time.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """To it and its workers."""
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()


class Proxy:
    """Passes requests on to a server, or misbehaves."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refuses = False
        self.loses = ""
        """The answers of requests whose path ends so do not arrive; what they ask for is done."""
        self.lost = 0

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Within the block it listens at that address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                self.close_connection = True
                if proxy.refuses:
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                if proxy.loses and self.path.endswith(proxy.loses):
                    proxy.lost += 1
                    return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = handle_any

            def log_message(self, *args: object) -> None:
                """Nothing."""

        return Handler
