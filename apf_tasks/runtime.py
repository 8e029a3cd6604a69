"""Where and how precisely to compute: device, precision, seeds, memory, signals."""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from apf_tasks.errors import ParamsError, UnfitParams
from apf_tasks.params import RuntimeParams


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


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Compute matrix products in `dtype`; weights, gradients and optimizer state stay float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def recompute(model: PreTrainedModel, activations: str) -> None:
    """Have the layers compute again in the backward pass what they did, as `runtime.activations` says.

    Chen et al. 2016, arXiv:1604.06174. Raises ParamsError for a model that cannot.
    """
    if activations == "keep":
        return
    if not model.supports_gradient_checkpointing:
        found = f"{type(model).__name__}, which cannot compute its layers again"
        raise UnfitParams("runtime.activations", "a model that can", found, "Write runtime.activations=keep.")
    told: dict[str, Any] = {"use_reentrant": False}
    if activations == "selective":
        told["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _products())
    model.activation_checkpointing_enable(told, offload=activations == "offload")


def _products() -> list[Any]:
    """Operations whose results are worth keeping: they are most of the time, and little of the memory."""
    aten = torch.ops.aten
    names = ["mm", "addmm", "bmm", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"]
    names += ["_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_cudnn_attention"]
    return [getattr(aten, name).default for name in names if hasattr(aten, name)]


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


_CAUGHT: list[list[int]] = []


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C end the current step first; the list gets the signal's number. An inner block shares it."""
    if _CAUGHT or threading.current_thread() is not threading.main_thread():
        yield _CAUGHT[-1] if _CAUGHT else []  # python delivers signals to the main thread alone
        return
    caught: list[int] = []
    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    _CAUGHT.append(caught)
    try:
        yield caught
    finally:
        _CAUGHT.remove(caught)
        for number, handler in before.items():
            signal.signal(number, handler)
