"""A model whose weights, gradients and optimizer state are divided over the ranks: FSDP2, torch's `fully_shard`.

Rajbhandari et al. 2020, ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, stage 3. What is written
to disk is whole, so a training goes on with another number of ranks, or with one. Functions that say so are for all
ranks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedModel

from apf_tasks.runtime.ranks import Ranks

T = TypeVar("T")
DIVIDED = "FSDP"
"""What `fully_shard` puts before the name of a module's class."""
_gathered: WeakKeyDictionary[PreTrainedModel, torch.dtype] = WeakKeyDictionary()
"""Divided models, and the type in which their layers compute products."""


def shard(model: PreTrainedModel, ranks: Ranks, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
    """Divide `model` in place: each layer by itself, then what is left. For all ranks at once.

    The matrices of layers are gathered in `dtype`, so that autocast has nothing to copy; all else as it is used without
    `shard`, in float32. Gradients are summed over the ranks in float32, as `Ranks.sum_gradients` does, not averaged.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # a second to import, which trainings of one rank do without

    _gathered[model] = dtype
    mesh, parts = init_device_mesh(device.type, (ranks.count,)), [*layers(model), model]
    for part in parts:
        fully_shard(part, mesh=mesh, mp_policy=_policy(part, torch.float32 if part is model else dtype))
    for part in parts:
        part.set_gradient_divide_factor(1.0)  # type: ignore[operator]
        part.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo knows no other


def _policy(part: nn.Module, dtype: torch.dtype) -> Any:
    """How weights are gathered and gradients are reduced."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if dtype == torch.float32:
        return MixedPrecisionPolicy()
    looked_up = {id(p) for module in part.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    options: dict[str, Any] = {}
    if "param_dtype_override_fn" in MixedPrecisionPolicy.__dataclass_fields__:  # torch 2.15; before, all of a layer
        options["param_dtype_override_fn"] = lambda p: p.dtype if p.dim() < 2 or id(p) in looked_up else dtype
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False, **options)


def as_gathered(model: PreTrainedModel) -> AbstractContextManager[Any]:
    """Within the block products are of the type in which `model` gathers its layers; float32 for one that is whole."""
    dtype = _gathered.get(model, torch.float32)
    return torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32)


def as_forward(model: PreTrainedModel, function: Callable[[], T]) -> T:
    """What `function` gives, called as the forward pass of `model`: of a divided one, what it uses is whole within.

    It must not call the model itself.
    """
    if not _is_sharded(model):
        return function()
    before = model.__dict__.get("forward")
    model.forward = function
    try:
        found: T = model()
        return found
    finally:
        del model.forward
        if before is not None:
            model.forward = before


@contextmanager
def unsharded(model: PreTrainedModel) -> Iterator[None]:
    """Within the block what no layer holds is whole, embeddings and head: writing uses some of it outside of a forward
    pass. After a first forward pass only. For all ranks at once."""
    if not _is_sharded(model):
        yield
        return
    divided: Any = model
    divided.unshard()
    try:
        yield
    finally:
        divided.reshard()


def _is_sharded(model: PreTrainedModel) -> bool:
    """Whether `shard` has made it one of torch's FSDPModules, also while its weights are whole."""
    return hasattr(model, "unshard")


def layers(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that transformers says are not to be split, where they stand in a row. (Embeddings may be tied to the
    head, so they stay with what is left.)"""
    kinds = set(model._no_split_modules or [])
    rows = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [layer for row in rows for layer in row if type(layer).__name__.removeprefix(DIVIDED) in kinds]


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with all its parts. For all ranks at once, when it is divided."""
    return tensor.full_tensor() if is_dtensor(tensor) else tensor  # type: ignore[attr-defined]


def is_dtensor(value: Any) -> bool:
    """Whether it is a tensor (torch's DTensor) of which every rank has a part."""
    return hasattr(value, "full_tensor")


def full_state_dict(state: Any) -> Any:
    """The same nested state with whole tensors, on the CPU where they were divided. For all ranks at once."""
    if is_dtensor(state):
        return state.full_tensor().cpu()
    if isinstance(state, dict):
        return {name: full_state_dict(value) for name, value in state.items()}
    return state


def load_model_state(model: PreTrainedModel, state: dict[str, torch.Tensor], strict: bool = True) -> None:
    """Put whole tensors into the model, divided as its own are."""
    mine = model.state_dict()
    model.load_state_dict({name: _like(tensor, mine.get(name)) for name, tensor in state.items()}, strict=strict)


def _like(value: Any, pattern: torch.Tensor | None) -> Any:
    """`value`, divided as `pattern` is; what has another shape (a count of steps) stays as it is."""
    if not is_dtensor(pattern) or not isinstance(value, torch.Tensor) or value.shape != pattern.shape:  # type: ignore[union-attr]
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(pattern, DTensor)
    return distribute_tensor(value.to(pattern.device), pattern.device_mesh, pattern.placements)
