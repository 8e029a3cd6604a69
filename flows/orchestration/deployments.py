"""The deployments of prefect.yaml on the Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from apf_tasks.cache import store
from apf_tasks.errors import ApfError
from flows.orchestration.settings import POOL

FILE = Path("prefect.yaml")
PAGE = 200


def deploy(url: str) -> str:
    """Make the work pool and all deployments of prefect.yaml on a server. Says what there is now. Raises ApfError."""
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        if not FILE.is_file():
            return f"Deployments none: there is no {FILE} in {Path.cwd()}"
        log = store.root() / "logs" / "deploy.log"
        with log.open("ab") as lines:
            command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
            told = os.environ | {"PREFECT_API_URL": url}
            done = subprocess.run(command, stdout=lines, stderr=lines, env=told, check=False)
        wanted = Counter(entry["name"] for entry in yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"])
        found = Counter(_names(client))
        if done.returncode or wanted - found:
            missing = ", ".join(sorted(wanted - found)) or "none"
            said = f"status {done.returncode}, missing: {missing}"
            raise ApfError(str(FILE), "all its deployments on the server", said, f"See {log}.")
        return f"Deployments {found.total()}: prefect deployment ls"


def _names(client: SyncPrefectClient) -> list[str]:
    """Of all deployments on the server; the same name may belong to several flows."""
    names: list[str] = []
    while page := client.read_deployments(limit=PAGE, offset=len(names)):
        names += [deployment.name for deployment in page]
    return names
