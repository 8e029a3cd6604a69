"""Several machines that train one model: where they meet, and how one joins. They share `mlruns`.

The first machine runs the pipeline. When a stage wants more machines, it leaves a call in `mlruns/nodes/<name>/` and
keeps touching `wanted.json` there as a sign of life. `apf join` on another machine finds the call, takes a number by
making the file `node-<number>`, which only one can, and starts its ranks.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apf_tasks.cache import store
from apf_tasks.params.base import Frozen
from apf_tasks.params.train import RuntimeParams

logger = logging.getLogger("apf")

WANTED = "wanted.json"
ADDRESS = "APF_ADDRESS"
"""The environment variable with the address under which other machines reach this one; its host name otherwise."""
POLL_SECONDS = 1.0


class NodeRequest(Frozen):
    """A call that needs more machines."""

    address: str
    """Where the first rank listens."""
    port: int
    nodes: int
    devices: int
    """On each of them."""
    device: str
    """What kind: cuda or cpu."""


@contextmanager
def rendezvous_folder(runtime: RuntimeParams) -> Iterator[Path]:
    """A folder for one call: of this machine alone, or where others find it, with what they have to know."""
    if runtime.nodes == 1:
        with tempfile.TemporaryDirectory(prefix="apf-ranks-") as name:
            yield Path(name)
        return
    (store.root() / "nodes").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=store.root() / "nodes"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def request_nodes(folder: Path, runtime: RuntimeParams, device: str) -> NodeRequest | None:
    """Make a call visible to other machines; None when it needs none."""
    if runtime.nodes == 1:
        return None
    address = os.environ.get(ADDRESS) or socket.getfqdn()
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    wanted = NodeRequest(address=address, port=port, nodes=runtime.nodes, devices=runtime.devices, device=device)
    (folder / WANTED).write_text(wanted.model_dump_json())
    logger.info("           waits for `apf join` on %d more machine(s) that share %s", wanted.nodes - 1, store.root())
    return wanted


def torchrun_options(wanted: NodeRequest | None, node: int, devices: int, device: str) -> list[str]:
    """What torchrun has to know of the machines, and how it starts the ranks of this one."""
    here = [f"--nproc-per-node={devices}", *([FORKED] if device == "cpu" else [])]
    if wanted is None:
        return ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=apf", *here]  # any free port
    where = [f"--master-addr={wanted.address}", f"--master-port={wanted.port}"]
    return [f"--nnodes={wanted.nodes}", f"--node-rank={node}", *here, *where]


def heartbeat(folder: Path) -> None:
    """Say that the first machine is still there."""
    if (folder / WANTED).is_file():
        (folder / WANTED).touch()


def live_calls(known: dict[Path, int]) -> list[tuple[Path, NodeRequest]]:
    """Calls whose first machine has given a sign of life since they were `known`, which is kept up to date.

    One that was left by a killed process never does. Clocks of different machines are not compared.
    """
    found = []
    for path in sorted((store.root() / "nodes").glob(f"*/{WANTED}")):
        try:
            touched, wanted = path.stat().st_mtime_ns, NodeRequest.model_validate_json(path.read_text())
        except (OSError, ValueError):
            continue  # gone, or not whole yet
        if known.setdefault(path, touched) != touched:
            found.append((path.parent, wanted))
    return found


def claim_node_rank(folder: Path, wanted: NodeRequest) -> int | None:
    """A number from 1 among the machines of a call, for this one alone; None when all are taken."""
    for node in range(1, wanted.nodes):
        try:
            (folder / f"node-{node}").touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError:
            return None  # the call is over
        return node
    return None


def next_call(known: dict[Path, int], patience: float, stopping: Sequence[int]) -> tuple[Path, NodeRequest, int] | None:
    """Wait for a call that this machine can join; None after `patience` seconds without one, or a signal."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and not stopping:
        for folder, wanted in live_calls(known):
            node = claim_node_rank(folder, wanted)
            if node is not None:
                return folder, wanted, node
        time.sleep(POLL_SECONDS)
    return None


FORKED = "--start-method=forkserver"
