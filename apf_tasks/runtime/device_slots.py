"""A device for one trial alone, on a machine where several are trained at the same time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from apf_tasks.cache import store
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.devices import choose_device

POLL_SECONDS = 0.5


@contextmanager
def exclusive_device(runtime: RuntimeParams, parallel: int) -> Iterator[str]:
    """Wait for a device on which no other trial is trained, and use it within the block.

    One flock for each device, which the kernel frees when its holder dies. Without CUDA there are as many places as
    trials at the same time, and each gets its share of the threads. Gives the name of the place.
    """
    kind = choose_device(runtime).type
    places = torch.cuda.device_count() if kind == "cuda" else parallel
    number, descriptor = _first_free(kind, places)
    threads = torch.get_num_threads()
    try:
        if kind == "cuda":
            torch.cuda.set_device(number)
        else:
            torch.set_num_threads(max(1, threads // parallel))
        yield f"{kind}:{number}"
    finally:
        torch.set_num_threads(threads)
        os.close(descriptor)


def _first_free(kind: str, places: int) -> tuple[int, int]:
    """Number and lock of a place; waits until there is one."""
    host = socket.gethostname()
    while True:
        for number in range(places):
            if (descriptor := store.take_lock(f"device-{host}-{kind}-{number}", timeout=0)) is not None:
                return number, descriptor
        time.sleep(POLL_SECONDS)
