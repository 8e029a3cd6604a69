"""Processes that train one model together, each on a device of its own: ranks, as torch.distributed calls them.

Every rank knows the whole step and computes its part of the forward passes; the sum of what they found is what one
process would have found alone. A process that trains alone is a rank of one, and nothing is sent.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a rank waits for the others: the first one may be writing a large checkpoint."""
BUCKET = 2**24
"""Numbers of a gradient that are sent at once."""
BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "cpu": "gloo"}


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and tracks."""
        return self.index == 0

    def partition(self, costs: Sequence[int]) -> list[int]:
        """The positions that are this rank's."""
        return partition(costs, self.count)[self.index]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.all_reduce_sum([0])

    def all_reduce_sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks."""
        return self._reduce(values, distributed.ReduceOp.SUM)

    def all_reduce_max(self, values: Sequence[float]) -> list[float]:
        """The largest that any rank has, of each value."""
        return self._reduce(values, distributed.ReduceOp.MAX)

    def _reduce(self, values: Sequence[float], how: distributed.ReduceOp.RedOpType) -> list[float]:
        if self.count == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(numbers, how)
        return [float(number) for number in numbers]

    def gather(self, value: T) -> list[T]:
        """What every rank has, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def sum_gradients(self, model: torch.nn.Module) -> None:
        """The gradient of each rank's part becomes the gradient of the whole, once per optimizer step."""
        if self.count == 1:
            return
        parameters = list(model.parameters())
        mine = [float(parameter.grad is not None) for parameter in parameters]
        gradients = []
        for parameter, anywhere in zip(parameters, self.all_reduce_max(mine), strict=True):
            if anywhere:  # a rank without a forward pass in this step has none
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad.view(-1))
        for bucket in _buckets(gradients):
            joined = torch.cat(bucket)
            distributed.all_reduce(joined)
            for gradient, summed in zip(bucket, torch.split(joined, [len(g) for g in bucket]), strict=True):
                gradient.copy_(summed)


SINGLE_PROCESS = Ranks()


def partition(costs: Sequence[int], count: int) -> list[list[int]]:
    """Positions for each of so many ranks: the costliest first, each to whoever has least.

    Graham 1969, Bounds on multiprocessing timing anomalies: at most 4/3 of the best cut, and no two ranks differ by
    more than one position costs.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, rank) for rank in range(count)]
    for position in sorted(range(len(costs)), key=lambda i: -costs[i]):
        load, rank = heapq.heappop(loads)
        shares[rank].append(position)
        heapq.heappush(loads, (load + costs[position], rank))
    return [sorted(share) for share in shares]


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Within the block: together with the other ranks that torchrun has started, on a device of its own."""
    distributed.init_process_group(BACKENDS[device], timeout=TIMEOUT)
    if device == "cuda":
        torch.cuda.set_device(distributed.get_node_local_rank())
    current_ranks().barrier()  # one that has failed and left already could not be met any more
    try:
        yield
    finally:
        distributed.destroy_process_group()


def current_ranks() -> Ranks:
    """This process among those that train together; alone where nobody has joined."""
    if distributed.is_available() and distributed.is_initialized():
        return Ranks(distributed.get_rank(), distributed.get_world_size())
    return SINGLE_PROCESS


def _buckets(gradients: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    buckets: list[list[torch.Tensor]] = [[]]
    room = BUCKET
    for gradient in gradients:
        if buckets[-1] and len(gradient) > room:
            buckets.append([])
            room = BUCKET
        buckets[-1].append(gradient)
        room -= len(gradient)
    return buckets
