"""Where and how precisely to compute: device, precision, seeds, memory, signals."""

from __future__ import annotations

import contextlib
import logging
import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from apf_tasks.errors import ParamsError
from apf_tasks.params.train import RuntimeParams

logger = logging.getLogger("apf")


def choose_device(runtime: RuntimeParams) -> torch.device:
    """The device the params ask for; `auto` takes CUDA, else MPS, else the CPU."""
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if runtime.device == "auto":
        return torch.device(next(name for name, works in usable.items() if works))
    if not usable[runtime.device]:
        found = ", ".join(name for name, works in usable.items() if works)
        raise ParamsError("runtime.device", f"a usable {runtime.device} device", found, "Write runtime.device=auto.")
    return torch.device(runtime.device)


def choose_precision(runtime: RuntimeParams, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: bf16 where the device computes it faster than fp32, or what the params say."""
    if runtime.precision != "auto":
        return torch.float32 if runtime.precision == "fp32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast_on_cpu = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast_on_cpu else torch.float32


def use_tf32(device: torch.device, dtype: torch.dtype) -> None:
    """Let CUDA multiply float32 matrices in TF32: sums in float32, factors of 10 bits. Said once."""
    if device.type == "cuda" and dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        logger.info("           float32 on CUDA: matrix products in TF32 (factors of 10 bits, sums in float32)")


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Compute matrix products in `dtype`; weights, gradients and optimizer state stay float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring the peak anew. On the CPU only Linux can; elsewhere it is the process's peak so far."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory in GiB: allocated on a CUDA device, resident for the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float(psutil.Process().memory_info().rss) / 2**30
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return kib / 2**20
