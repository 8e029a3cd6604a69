"""Which process works on a run: so that a run whose process has died is not taken for one that is under way."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import psutil


def owner_tags() -> dict[str, str]:
    """This process, as tags of a run."""
    process = psutil.Process()
    return {"apf.host": socket.gethostname(), "apf.pid": str(process.pid), "apf.started": str(process.create_time())}


def still_lives(tags: Mapping[str, str]) -> bool:
    """Whether the very process that the tags of a run of this machine name (a pid is used again) still lives."""
    try:
        process = psutil.Process(int(tags["apf.pid"]))
        return abs(process.create_time() - float(tags["apf.started"])) < 1
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False
