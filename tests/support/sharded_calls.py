"""What each rank of a divided model holds, measured in the rank: a module that ranks can import."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Held(TorchDispatchMode):
    """Bytes of storages that are made under it: how many there are at the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {_storage(t) for t in torch.utils._pytree.tree_leaves((args, kwargs)) if _is_plain(t)}
        for tensor in torch.utils._pytree.tree_leaves(found):
            if _is_plain(tensor) and _storage(tensor) not in given | self._known:
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        pointer, size = storage._cdata, storage.nbytes()
        self._known.add(pointer)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, pointer, size)

    def _gone(self, pointer: int, size: int) -> None:
        self._known.discard(pointer)
        self.now -= size


def _is_plain(value: Any) -> bool:
    return type(value) in (torch.Tensor, torch.nn.Parameter)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def held(folder: Path, out: Path) -> list[dict[str, float]]:
    """Of every rank, in their order; `part` and `layer` are what it may hold."""
    from apf_tasks.evaluation.predictor import load_predictor
    from apf_tasks.params.family import family_params
    from apf_tasks.params.model import ModelParams
    from apf_tasks.params.train import RuntimeParams
    from apf_tasks.runtime.ranks import current_ranks
    from apf_tasks.runtime.sharding import full_state_dict, layers, shard
    from apf_tasks.training._compile import Compiler
    from apf_tasks.training.weights import save_best

    runtime = RuntimeParams(device="cpu", devices=2, shard=True, precision="bf16", compile="on")
    family, ranks = family_params("causal_lm")(name="causal_lm"), current_ranks()
    network = load_predictor(folder, ModelParams(base=str(folder), max_tokens=64), family, (), runtime)
    model = network.model
    here: dict[str, float] = {"loaded": sum(p.nbytes for p in model.parameters() if not p.is_meta)}
    whole = sum(p.nbytes for p in model.parameters())
    rows = layers(model)
    here |= {"part": whole / ranks.count, "layer": max(sum(p.nbytes for p in layer.parameters()) for layer in rows)}
    shard(model, ranks, network.place.device, network.place.dtype)
    here["kept"] = kept_weights(model, rows)
    for name, work in (
        ("save_best", lambda: save_best(out, model, 1)),
        ("written", lambda: full_state_dict(model.state_dict())),
    ):
        with Held() as counted:
            result = work()
        here[name] = counted.most
        del result
    Compiler(model, runtime, network.place)
    here["compiled"] = sum(layer._compiled_call_impl is not None for layer in rows) / len(rows)
    return ranks.gather(here)


def kept_weights(model: Any, layers: list[torch.nn.Module]) -> float:
    """Bytes of the layers' matrices, for each weight of them, from the forward pass to the backward pass."""
    matrices = [p for layer in layers for p in layer.parameters() if p.dim() == 2]
    shapes = {size for p in matrices for size in (tuple(p.shape), tuple(p.shape)[::-1])}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) in shapes:
            kept.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16), hooks:
        logits = model(input_ids=torch.arange(48)[None], use_cache=False).logits
    torch.clear_autocast_cache()
    sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    logits.sum().backward()
    model.zero_grad()
    return sum(sizes.values()) / sum(p.numel() for p in matrices)
