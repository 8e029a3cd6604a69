"""Local servers over what was recorded, Prefect's and MLflow's; on request with deployments and a worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from apf_tasks.cache import store
from apf_tasks.serving._processes import Started, free_port, run_until_interrupted, start, wait_for
from flows.cli._app import out
from flows.orchestration.settings import POOL, SERVER_FILE, apply_defaults, running_server


def serve(work: bool = False) -> None:
    """Start the servers (and with `work` deployments and a worker), print their addresses, run until Ctrl-C."""
    apply_defaults()
    started: Started = []
    with _address_forgotten(started), run_until_interrupted(started, out.print):
        _start_mlflow(started)
        if (url := running_server()) is None:
            url = _start_prefect(started)
        else:
            out.print(f"Prefect     {url.removesuffix('/api')} (already running)")
        if work:
            from flows.orchestration.deployments import deploy

            out.print(deploy(url))
            command = ["prefect", "worker", "start", "--pool", POOL, "--type", "process"]
            start("worker", command, started, PREFECT_API_URL=url)


def _start_mlflow(started: Started) -> None:
    from apf_tasks.runs.reused import deliver_outbox
    from apf_tasks.tracking import tracker

    tracker.client()
    deliver_outbox()
    uri = tracker.tracking_uri()
    if uri.startswith("http"):
        out.print(f"MLflow      {uri} (the team's)")
        return
    port = free_port(5000)
    command = ["mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    command += [
        "--workers",
        "1",
    ]  # each takes 0.3 GB, and of several a busy machine kills those that start slowly
    wait_for(start("mlflow", command, started), f"http://127.0.0.1:{port}/health", "mlflow")
    out.print(f"MLflow      http://127.0.0.1:{port}")


def _start_prefect(started: Started) -> str:
    port = free_port(4200)
    process = start("prefect", ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)], started)
    url = f"http://127.0.0.1:{port}/api"
    wait_for(process, f"{url}/health", "prefect")
    (store.root() / SERVER_FILE).write_text(json.dumps({"url": url, "pid": process.pid}))
    out.print(f"Prefect     http://127.0.0.1:{port}")
    out.print(f"            for `prefect` in other terminals: export PREFECT_API_URL={url}")
    return url


@contextmanager
def _address_forgotten(started: Started) -> Iterator[None]:
    """After the block nobody finds the address of a server that was started in it."""
    try:
        yield
    finally:
        file = store.root() / SERVER_FILE
        if file.is_file() and json.loads(file.read_text()).get("pid") in [process.pid for process in started]:
            file.unlink()
