"""What is under the code: Python, CPU, threads and library versions."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pyarrow", "mlflow", "prefect"),
)
"""Distributions whose exact version is recorded for every stage, beside those that its key names."""


INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Those that decide which kernels run, and so how sums are rounded."""


def environment(libraries: Iterable[str] = ()) -> dict[str, str]:
    """What is under the code now: python, system, cpu, threads, and the versions of the main and of these libraries."""
    here = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    names = sorted({*LIBRARIES, *libraries})
    return here | {"cpu": cpu_kind(), "threads": threads()} | {name: installed_version(name) for name in names}


@functools.cache
def installed_version(name: str) -> str:
    """The version of a distribution; optional ones may be `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def threads() -> str:
    """How many threads a library may compute with; sums are cut among them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("OMP_NUM_THREADS") or str(usable)


@functools.cache
def cpu_kind() -> str:
    """Model of the CPU and its instruction sets of INSTRUCTION_SETS. Another kind may round differently."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        described = ""
    model = re.search(r"^model name\s*:\s*(.+)$", described, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", described, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    sets = ", ".join(name for name in INSTRUCTION_SETS if name in present)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name} ({sets})" if sets else name
