"""Several optimizers that look like one: over parts of a model, or one for each tensor, in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from apf_tasks.errors import DivergedError


class OptimizersContainer(torch.optim.Optimizer):
    """Optimizers over parts of a model as one. Its groups are theirs, so a learning rate that is set reaches them."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Of each."""
        assert closure is None
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of each."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Theirs, in order."""
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Back to what `state_dict` gave."""
        for number, part in enumerate(self.parts):
            part.load_state_dict(state_dict[str(number)])
        self._share_groups()


class OptimizerInBackward(OptimizersContainer):
    """One optimizer for each tensor. It steps as soon as the tensor's gradient is there, and the gradient is freed.

    So never more than a few gradients are in memory. A step is one backward pass then, and there is no norm of the
    whole gradient before it is used up: nothing can be clipped by it. The idea is LOMO's (Lv et al. 2023,
    arXiv:2306.09782), with any optimizer that looks at one tensor at a time.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer], tensors: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(parts)
        self._squares = torch.zeros(())
        for part, parameter in zip(self.parts, tensors, strict=True):
            parameter.register_post_accumulate_grad_hook(self._hook(part))  # type: ignore[no-untyped-call]

    def _hook(self, part: torch.optim.Optimizer) -> Callable[[torch.Tensor], None]:
        def use(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            square = parameter.grad.detach().float().square().sum()
            if not bool(torch.isfinite(square)):
                shape = "×".join(map(str, parameter.shape))
                do = "Lower train.learning_rate, or lengthen train.warmup_fraction."
                raise DivergedError("training", "a finite gradient", f"{float(square)} in a tensor of {shape}", do)
            self._squares = self._squares.to(square.device) + square
            part.step()
            parameter.grad = None

        return use

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nothing: it is done."""

    def norm(self) -> torch.Tensor:
        """L2 norm of the gradient that was used up since the last call."""
        found, self._squares = self._squares.sqrt(), torch.zeros(())
        return found
