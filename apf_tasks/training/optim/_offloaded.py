"""Weights and moments of an optimizer in the CPU's memory, where its steps are computed: the device has neither.

torchao's `CPUOffloadOptimizer` copies gradients during the backward pass, before they are clipped or summed over
passes, knows no hooks, and goes on from its own weights when a checkpoint was read. This one copies them in its step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from apf_tasks.training.optim.from_params import Groups
from apf_tasks.training.optim.joined import OptimizersContainer


class OffloadedOptimizer(OptimizersContainer):
    """An optimizer for each tensor, over a copy of it in the CPU's memory."""

    def __init__(self, groups: Groups, over: Callable[[Groups], torch.optim.Optimizer]) -> None:
        self._weights: list[torch.nn.Parameter] = [p for group in groups for p in group["params"]]
        self._copies = [_on_host(weight) for weight in self._weights]
        options = [group for group in groups for _ in group["params"]]
        super().__init__(
            [over([group | {"params": [copy]}]) for group, copy in zip(options, self._copies, strict=True)]
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """All gradients are on their way while the first tensors are updated."""
        assert closure is None
        felt = [
            (part, weight, copy, _fetch(weight.grad, copy))
            for part, weight, copy in zip(self.parts, self._weights, self._copies, strict=True)
            if weight.grad is not None
        ]
        for part, weight, copy, arrived in felt:
            if arrived is not None:
                arrived.synchronize()
            part.step()
            weight.copy_(copy, non_blocking=True)
        if felt and felt[-1][1].is_cuda:
            torch.cuda.current_stream().synchronize()  # the copies may be changed again

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of the device; the memory of the others is used again."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Back to what `state_dict` gave, with the weights that the model has now."""
        super().load_state_dict(state_dict)
        for weight, copy in zip(self._weights, self._copies, strict=True):
            copy.copy_(weight)


def _on_host(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    """The same numbers, and room for their gradient, in memory that a CUDA device copies from while it computes."""
    pinned = weight.is_cuda
    copy = torch.nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, pin_memory=pinned))
    copy.data.copy_(weight.detach())
    copy.grad = torch.zeros(weight.shape, dtype=weight.dtype, pin_memory=pinned)
    return copy


def _fetch(gradient: torch.Tensor, copy: torch.nn.Parameter) -> torch.cuda.Event | None:
    """The gradient on its way; on CUDA, what says that it has arrived."""
    assert copy.grad is not None
    copy.grad.copy_(gradient, non_blocking=True)
    return torch.cuda.current_stream().record_event() if gradient.is_cuda else None
