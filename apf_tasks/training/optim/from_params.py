"""Optimizers made from their options in the params: torch's, transformers' and torchao's classes."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch

from apf_tasks.params.optimizers import SGD, Adafactor, AdamW, AdamW8bit, Muon, OffloadedAdamW
from apf_tasks.training.optim.joined import OptimizersContainer

Groups = list[dict[str, Any]]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Of all parameter groups. Where it is a tensor it stays the same one: torchao compiles its steps over it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def decay_groups(model: torch.nn.Module, weight_decay: float) -> Groups:
    """Two parameter groups: matrices (decayed) and everything of fewer dimensions (biases, norms: not decayed)."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def build(options: Any, model: torch.nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """The optimizer of all parameters of `model`. Raises ImportError without the optimizer's library."""
    groups = decay_groups(model, weight_decay)
    if isinstance(options, Muon):
        return _muon_and_rest(options, model, groups, learning_rate, weight_decay)
    return from_param_groups(options, groups, learning_rate)


@singledispatch
def from_param_groups(options: Any, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer of these parameter groups. Raises ImportError without the optimizer's library."""
    raise TypeError(f"no optimizer is known for {type(options).__name__}")


@from_param_groups.register
def _(options: AdamW, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    betas = (options.beta1, options.beta2)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=options.epsilon, fused=True)


@from_param_groups.register
def _(options: AdamW8bit, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    from torchao.optim import AdamW8bit as Torchao8bit

    betas = (options.beta1, options.beta2)
    made: torch.optim.Optimizer = Torchao8bit(groups, lr=learning_rate, betas=betas, eps=options.epsilon)
    return made


@from_param_groups.register
def _(options: OffloadedAdamW, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    from apf_tasks.training.optim._offloaded import OffloadedOptimizer  # which needs this module

    plain = AdamW(**options.model_dump(exclude={"name"}))
    return OffloadedOptimizer(groups, lambda group: from_param_groups(plain, group, learning_rate))


@from_param_groups.register
def _(options: Adafactor, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """transformers' Adafactor with the learning rate as it is, not relative to the size of the weights."""
    from transformers.optimization import Adafactor as TransformersAdafactor

    own: dict[str, Any] = {"decay_rate": -options.decay_exponent, "clip_threshold": options.clip}
    fixed: dict[str, Any] = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    return TransformersAdafactor(groups, lr=learning_rate, **own, **fixed)  # type: ignore[no-untyped-call]


@from_param_groups.register
def _(options: SGD, groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    nesterov = options.momentum > 0
    return torch.optim.SGD(groups, lr=learning_rate, momentum=options.momentum, nesterov=nesterov, fused=True)


def _muon_and_rest(
    options: Muon, model: torch.nn.Module, groups: Groups, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """torch's Muon for the matrices of the layers and torch's AdamW for the rest, as one optimizer."""
    matrices = hidden_matrices(model)
    taken = {id(p) for p in matrices}
    rest = [group | {"params": [p for p in group["params"] if id(p) not in taken]} for group in groups]
    muon = torch.optim.Muon(
        matrices,
        lr=learning_rate,
        weight_decay=weight_decay,
        momentum=options.momentum,
        ns_steps=options.iterations,
        adjust_lr_fn="match_rms_adamw",
    )
    return OptimizersContainer([muon, from_param_groups(options.rest, rest, learning_rate)])


def hidden_matrices(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The matrices inside the repeated layers: no embedding, no head, nothing that is shared with one."""
    found: dict[int, torch.nn.Parameter | None] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        repeated = any(part.isdigit() for part in name.split("."))
        for parameter in module.parameters(recurse=False):
            inside = repeated and parameter.dim() == 2 and not isinstance(module, torch.nn.Embedding)
            found[id(parameter)] = parameter if inside and found.get(id(parameter), parameter) is not None else None
    return [parameter for parameter in found.values() if parameter is not None]
