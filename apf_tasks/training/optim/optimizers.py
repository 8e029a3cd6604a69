"""The optimizer of a training, as `train.optimizer` and `runtime` say, and what does not go together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from apf_tasks.errors import ParamsError, UnsuitableParamsError
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training.optim._bf16 import StochasticRoundingOptimizer
from apf_tasks.training.optim.from_params import Groups, build, decay_groups, from_param_groups
from apf_tasks.training.optim.joined import OptimizerInBackward, OptimizersContainer

Over = Callable[[Groups], torch.optim.Optimizer]
"""Makes the optimizer of parameter groups."""


def check_optimizer(params: TrainParams, runtime: RuntimeParams, device: str, devices: int) -> None:
    """Raises ParamsError where the optimizer is of no use on such devices, or does not go together with the runtime."""
    chosen = params.optimizer
    where, do = "train.optimizer.name", "docs/OPTIMIZERS.md lists what each supports."
    if device not in chosen.made_for:
        found = f"{chosen.name}, which is for {' and '.join(chosen.made_for)} and many times slower here"
        raise UnsuitableParamsError(where, f"an optimizer for {device}", found, do)
    if runtime.shard and not chosen.shards:
        raise UnsuitableParamsError(where, "one that supports sharded tensors, for runtime.shard", chosen.name, do)
    if devices > 1 and chosen.one_device:
        found = f"{chosen.name} on {devices}: {chosen.one_device}"
        raise UnsuitableParamsError(where, "an optimizer for several devices", found, "Write adamw and runtime.shard.")
    if runtime.activations == "offload" and device != "cuda":
        raise ParamsError("runtime.activations", "`offload` with a CUDA device", device, "Write recompute.")
    if params.step_in_backward and devices > 1:
        found = f"{devices} devices, whose gradients have to be added first"
        raise UnsuitableParamsError("train.step_in_backward", "one device", found, "Write runtime.devices=1.")
    if runtime.precision == "pure_bf16" and not chosen.by_tensor:
        raise UnsuitableParamsError(
            where, "one that works on single tensors, for runtime.precision=pure_bf16", chosen.name, do
        )


def optimizer_of(model: torch.nn.Module, params: TrainParams, runtime: RuntimeParams) -> torch.optim.Optimizer:
    """The optimizer of a model. Raises ParamsError without its library."""
    chosen, pure = params.optimizer, runtime.precision == "pure_bf16"
    try:
        if not (params.step_in_backward or pure):
            return build(chosen, model, params.learning_rate, params.weight_decay)
        groups = decay_groups(model, params.weight_decay)
        return _by_tensor(groups, lambda group: from_param_groups(chosen, group, params.learning_rate), params, pure)
    except ImportError as error:
        raise ParamsError("train.optimizer.name", "its library", str(error), "pip install 'apf[cuda]'.") from error


def _by_tensor(groups: Groups, over: Over, params: TrainParams, pure: bool) -> torch.optim.Optimizer:
    """An optimizer for each tensor, in the backward pass or after it, with what it keeps in float32 or bfloat16."""
    single = [group | {"params": [p]} for group in groups for p in group["params"]]
    seeds = np.random.SeedSequence([params.seed, len(single)]).generate_state(len(single))
    parts = [
        StochasticRoundingOptimizer(group, over, int(seed)) if pure else over([group])
        for group, seed in zip(single, seeds, strict=True)
    ]
    return (
        OptimizerInBackward(parts, [group["params"][0] for group in single])
        if params.step_in_backward
        else OptimizersContainer(parts)
    )
