"""Dropout that does not wait for its random numbers, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from apf_tasks.training._kernels import replaced_kernel

LEVELS = 2**16


@contextmanager
def fast_cpu_dropout(device: torch.device) -> Iterator[None]:
    """Within the block, torch draws dropout on the CPU from 16 bits per value instead of a double.

    Everything that drops goes through this one operation: layers, functions, and attention. A third of the time, and
    the same distribution with the probability rounded to 1/65,536. Other devices have fused kernels of their own.
    """
    if device.type != "cpu":
        yield
        return
    with replaced_kernel("bernoulli_.float", _bernoulli, "CPU"):
        yield


def _bernoulli(values: torch.Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> torch.Tensor:
    """Fill with 1 where a draw is below `p`, else 0.

    One number of torch's generator seeds the draws (SFC64), so that what restores torch's state, as layers
    that are computed again do, gets the same draws again.
    """
    below = round(p * LEVELS)
    if below in (0, LEVELS):
        return values.fill_(below // LEVELS)
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    words = np.random.SFC64(seed).random_raw(-(-values.numel() // 4))
    ones = words.view(np.uint16)[: values.numel()] < np.uint16(below)
    return values.copy_(torch.from_numpy(ones).view(values.shape))
