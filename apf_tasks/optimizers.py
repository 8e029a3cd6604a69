"""Optimizers: one params class each, with `build(model, learning_rate, weight_decay)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from apf_tasks.frozen import Frozen

if TYPE_CHECKING:
    import torch

Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(Frozen):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, algorithm 2)."""

    name: Literal["adamw"] = "adamw"
    """The optimizer."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient."""
    beta2: Beta = 0.999
    """Decay of the mean of its square."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""

    def build(self, model: torch.nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """torch's fused AdamW over all parameters of `model`."""
        import torch

        groups = decay_groups(model, weight_decay)
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=self.epsilon, fused=True)


Optimizer = AdamW  # a union, discriminated by `name`, as soon as there is a second one


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two parameter groups: matrices (decayed) and everything of fewer dimensions (biases, norms: not decayed)."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
