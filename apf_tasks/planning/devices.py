"""How much memory a device has: this machine, and GPUs by name. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import psutil

from apf_tasks.errors import ParamsError

GIB = 2**30
GPUS = {
    "a10-24gb": 24,
    "a100-40gb": 40,
    "a100-80gb": 80,
    "h100-80gb": 80,
    "h200-141gb": 141,
    "l4-24gb": 24,
    "l40s-48gb": 48,
    "rtx-3090-24gb": 24,
    "rtx-4090-24gb": 24,
    "rtx-5090-32gb": 32,
    "t4-16gb": 16,
    "v100-32gb": 32,
}
"""Memory in units of 10^9 bytes, as NVIDIA's data sheets say it: a cautious reading, most show a few percent more."""
WITHOUT_BF16 = frozenset({"t4-16gb", "v100-32gb"})
"""Turing and Volta: bfloat16 came with Ampere (NVIDIA, A100 white paper, 2020)."""
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def check_device(name: str) -> str:
    """The name if it is known: `cpu` or a GPU's. Raises ParamsError."""
    if name != "cpu" and name not in GPUS:
        raise ParamsError("--device", "cpu, " + ", ".join(GPUS), repr(name), "Choose one of them, the nearest in size.")
    return name


def device_type(name: str) -> str:
    """`cpu`, or `cuda` for a GPU's name."""
    return "cpu" if name == "cpu" else "cuda"


def memory_bytes(name: str) -> int:
    """Of a GPU by its name; for `cpu` that of this machine, or what its control group allows if that is less."""
    if name != "cpu":
        return GPUS[check_device(name)] * 10**9
    limits = [int(path.read_text()) for path in CGROUP_LIMITS if path.is_file() and path.read_text().strip().isdigit()]
    return min([int(psutil.virtual_memory().total), *limits])


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / GIB:,.1f} GiB" if count >= 0.1 * GIB else f"{count / 2**20:,.1f} MiB"
