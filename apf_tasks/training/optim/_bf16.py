"""Weights and moments that are bfloat16 between steps: half the memory of float32 ones.

An update that is smaller than the distance of two bfloat16 numbers would be lost by rounding to the nearest one. So it
is rounded up or down at random, up with the probability that makes the mean right (Gupta et al. 2015, Deep Learning
with Limited Numerical Precision; for bfloat16 weights Zamirai et al. 2020, Revisiting BFloat16 Training).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from apf_tasks.training.optim.from_params import Groups

LOST_BITS = 16
"""Of a float32 that a bfloat16 has not."""


def rounded(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 numbers as one of the two bfloat16 numbers around each, in the mean unchanged; bfloat16 ones as they are.

    What is added at random below the last bit that is kept carries with the probability of its remainder.
    """
    noise = torch.empty_like(values, dtype=torch.int32).random_(0, 2**LOST_BITS, generator=generator)
    kept = (values.view(torch.int32) + noise) & -(2**LOST_BITS)
    return torch.where(values.isfinite(), kept.view(torch.float32), values).to(torch.bfloat16)


class StochasticRoundingOptimizer(torch.optim.Optimizer):
    """The optimizer of one bfloat16 tensor. For the time of a step the tensor and its moments are float32."""

    def __init__(self, group: dict[str, Any], over: Callable[[Groups], torch.optim.Optimizer], seed: int) -> None:
        (self.weight,) = group["params"]
        self._stand_in = torch.nn.Parameter(torch.empty(0, device=self.weight.device))
        self._inner = over([group | {"params": [self._stand_in]}])
        self._generator, self._seed = torch.Generator(self.weight.device), seed
        super().__init__(self._inner.param_groups, {})
        self.param_groups = self._inner.param_groups
        self.param_groups[0]["rounded_steps"] = 0

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """In float32, then back."""
        assert closure is None
        if self.weight.grad is None:
            return
        number = self.param_groups[0]["rounded_steps"]
        self._generator.manual_seed(self._seed + 2**32 * number)  # a function of where it stands, for resumption
        weight, state = self._stand_in, self._inner.state
        weight.data, weight.grad = self.weight.detach().float(), self.weight.grad.float()
        for name in self._moments():
            state[weight][name] = state[weight][name].float()
        self._inner.step()
        self.weight.detach().copy_(rounded(weight.data, self._generator))
        for name in self._moments():
            state[weight][name] = rounded(state[weight][name], self._generator)
        weight.data, weight.grad = torch.empty(0, device=self.weight.device), None
        self.param_groups[0]["rounded_steps"] = number + 1

    def _moments(self) -> list[str]:
        """What is kept for each number of the tensor, but for torchao's tensors of 8 bits."""
        kept = {name: v for name, v in self._inner.state[self._stand_in].items() if torch.is_tensor(v)}
        ours = {name: value for name, value in kept.items() if not hasattr(value, "__tensor_flatten__")}
        return [name for name, value in ours.items() if value.shape == self.weight.shape]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of the tensor."""
        self.weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's."""
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Back to what `state_dict` gave."""
        self._inner.load_state_dict(state_dict)
        self.param_groups = self._inner.param_groups
