"""Several optimizers that look like one: over parts of a model, or one for each tensor, in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from apf_tasks.errors import Diverged, ParamsError, UnfitParams
from apf_tasks.evaluation.predictor import Network
from apf_tasks.params.optimizers import Groups, decay_groups
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training.optim._bf16 import Rounded

Over = Callable[[Groups], torch.optim.Optimizer]
"""Makes the optimizer of parameter groups."""


class Joined(torch.optim.Optimizer):
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


class InBackward(Joined):
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
                raise Diverged("training", "a finite gradient", f"{float(square)} in a tensor of {shape}", do)
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


def layer_matrices(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The matrices inside the repeated layers: no embedding, no head, nothing that is shared with one."""
    found: dict[int, torch.nn.Parameter | None] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        repeated = any(part.isdigit() for part in name.split("."))
        for parameter in module.parameters(recurse=False):
            inside = repeated and parameter.dim() == 2 and not isinstance(module, torch.nn.Embedding)
            found[id(parameter)] = parameter if inside and found.get(id(parameter), parameter) is not None else None
    return [parameter for parameter in found.values() if parameter is not None]


def build_optimizer(network: Network, params: TrainParams, runtime: RuntimeParams) -> torch.optim.Optimizer:
    """As the params say. Raises ParamsError where it is of no use, or does not go together with the runtime."""
    check_optimizer(params, runtime, network.place.device.type, network.place.ranks.count)
    return optimizer_of(network.model, params, runtime)


def check_optimizer(params: TrainParams, runtime: RuntimeParams, device: str, devices: int) -> None:
    """Raises ParamsError where the optimizer is of no use on such devices, or does not go together with the runtime."""
    chosen = params.optimizer
    where, do = "train.optimizer.name", "docs/OPTIMIZERS.md says what each is for."
    if device not in chosen.made_for:
        found = f"{chosen.name}, which is for {' and '.join(chosen.made_for)} and many times slower here"
        raise UnfitParams(where, f"an optimizer for {device}", found, do)
    if runtime.shard and not chosen.shards:
        raise UnfitParams(where, "one that works on parts of tensors, for runtime.shard", chosen.name, do)
    if runtime.activations == "offload" and device != "cuda":
        raise ParamsError("runtime.activations", "`offload` with a CUDA device", device, "Write recompute.")
    if params.step_in_backward and devices > 1:
        found = f"{devices} devices, whose gradients have to be added first"
        raise UnfitParams("train.step_in_backward", "one device", found, "Write runtime.devices=1.")
    if runtime.precision == "pure_bf16" and not chosen.by_tensor:
        raise UnfitParams(where, "one that works on single tensors, for runtime.precision=pure_bf16", chosen.name, do)


def optimizer_of(model: torch.nn.Module, params: TrainParams, runtime: RuntimeParams) -> torch.optim.Optimizer:
    """The optimizer of a model. Raises ParamsError without its library."""
    chosen, pure = params.optimizer, runtime.precision == "pure_bf16"
    try:
        if not (params.step_in_backward or pure):
            return chosen.build(model, params.learning_rate, params.weight_decay)
        groups = decay_groups(model, params.weight_decay)
        return _by_tensor(groups, lambda group: chosen.over(group, params.learning_rate), params, pure)
    except ImportError as error:
        raise ParamsError("train.optimizer.name", "its library", str(error), "pip install 'apf[cuda]'.") from error


def _by_tensor(groups: Groups, over: Over, params: TrainParams, pure: bool) -> torch.optim.Optimizer:
    """An optimizer for each tensor, in the backward pass or after it, with what it keeps in float32 or bfloat16."""
    single = [group | {"params": [p]} for group in groups for p in group["params"]]
    seeds = np.random.SeedSequence([params.seed, len(single)]).generate_state(len(single))
    parts = [
        Rounded(group, over, int(seed)) if pure else over([group]) for group, seed in zip(single, seeds, strict=True)
    ]
    return InBackward(parts, [group["params"][0] for group in single]) if params.step_in_backward else Joined(parts)
