"""The peak memory of a training before it runs: its own loop, for its heaviest step, on tensors without numbers.

What a step takes of a model is the same on every device, but for two things that a GPU does its own way: attention
never has its whole matrix there, and products are bfloat16. Ranks are taken as equal: what one has, all have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from apf_tasks.data.batching import epoch_order
from apf_tasks.evaluation.predictor import Predictor, load_predictor
from apf_tasks.examples import Examples
from apf_tasks.inputs import TrainingInputs
from apf_tasks.models.pretrained import without_weights
from apf_tasks.params.optimizers import SGD
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.planning._fake_tensors import MemoryTracker, tracked
from apf_tasks.planning._gpu_attention import gpu_attention
from apf_tasks.planning.devices import WITHOUT_BF16, device_type
from apf_tasks.runtime.ranks import BUCKET
from apf_tasks.sources.models import model_folder
from apf_tasks.training.attention import PaddingFree, UnsupportedAttentionError, padding_free
from apf_tasks.training.loop import max_tokens_per_forward, train_steps
from apf_tasks.training.optim.optimizers import check_optimizer
from apf_tasks.training.state import constants_of, set_up
from apf_tasks.training.step_loader import pass_tokens, split_among_ranks

HEAP_TENSOR = 2**25
"""Bytes up to which glibc may keep a freed tensor's memory in its heap (mallopt(3), M_MMAP_THRESHOLD)."""
HEAP_SHARE = 0.85
"""Holes in that heap, as a share of such tensors: the memory of a freed one is often just too small for the next.
Measured: docs/MEMORY.md."""
APART = "MALLOC_MMAP_THRESHOLD_"
"""Environment variable of glibc: tensors of so many bytes and more are given back at once, and there are no holes."""
KERNELS = 60 * 2**20
"""Bytes that matrix products and threads take for themselves on a CPU. Measured, with one thread."""
CUDA_CONTEXT = 2**29
"""Bytes of the CUDA context and the libraries' workspaces. An assumption: it was never measured here."""
CUDA_SHARE = 0.05
"""Holes in the memory that torch's allocator holds on a GPU, as a share of it. An assumption too."""
Make = Callable[[], Predictor]


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training, on each device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass leaves for the backward pass."""
    logits: int
    """Tensors with a number for every token of the vocabulary."""
    workspace: int
    """What passes and the optimizer need for a moment, and what the allocator holds beyond."""
    libraries: int
    """Python, torch and the like; on a GPU the CUDA context."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())


def predict(trial: TrainingInputs, device: str, cut: int | None = None) -> Memory:
    """Peak memory of a trial on `device` (`cpu`, or a GPU's name). With `cut`, of rows cut to so many tokens.

    Raises ParamsError for an optimizer that the device cannot use.
    """
    folder = model_folder(trial.model)
    on_cpu = trial.runtime.model_copy(update={"device": "cpu", "precision": precision(trial.runtime, device)})

    def make() -> Predictor:
        with without_weights():
            return load_predictor(folder, trial.model, trial.family, trial.train.label_names, on_cpu)

    examples = Examples.of(trial.train)
    if cut is not None:
        examples = cut_to(examples, cut)
    return predict_step(
        make, examples, trial.params, on_cpu, device, lambda network: constants_of(network, trial.train)
    )


def precision(runtime: RuntimeParams, device: str) -> str:
    """What `auto` means on the device."""
    if runtime.precision != "auto" or device == "cpu":
        return runtime.precision
    return "fp32" if device in WITHOUT_BF16 else "bf16"


def predict_step(
    make: Make,
    examples: Examples,
    params: TrainParams,
    runtime: RuntimeParams,
    device: str,
    constants: Callable[[Predictor], dict[str, torch.Tensor]] = lambda network: {},
) -> Memory:
    """Peak memory of the heaviest step of these examples. `make` gives the network, on fake tensors."""
    check_optimizer(params, runtime, device_type(device), runtime.ranks)
    libraries = psutil.Process().memory_info().rss if device == "cpu" else CUDA_CONTEXT
    params, extra = _plain_optimizer(params)
    kept = "recompute" if runtime.activations == "offload" else runtime.activations
    most = max_tokens_per_forward(params, device_type(device))
    params = params.model_copy(update={"micro_batch_tokens": most, "epochs": 1})
    with tracked() as tracker, nullcontext() if device == "cpu" else gpu_attention():
        network = make()
        free, optimizer = set_up(
            network, examples, params, runtime.model_copy(update={"activations": kept}), _without_padding
        )
        model = network.model
        for tensor in (*model.parameters(), *model.buffers()):
            tracker.note(tensor, "weights")
        tracker.vocabulary = int(getattr(model.config.get_text_config(decoder=True), "vocab_size", 0))
        with _sorted_by_use(tracker, model):
            most_heavy = largest_step(examples, params, runtime.ranks, free is not None)
            for rows in (examples.lengths.argsort(kind="stable")[:1], most_heavy):
                start = len(tracker.events)
                few = Examples(examples.table.take(rows))
                at_once = params.model_copy(update={"batch_size": len(rows)})
                for _ in train_steps(network, optimizer, few, at_once, 0, free, constants(network)):
                    pass
        found = tracker.peak(start, HEAP_TENSOR)
        count = sum(parameter.numel() for parameter in model.parameters())
        found["optimizer"] += int(extra * count)
        layers = max((sum(p.numel() for p in layer.parameters()) for layer in _layers(model)), default=count)
    return _on_device(found, runtime, device, libraries, 4 * layers, 4 * count)


def _on_device(found: Any, runtime: RuntimeParams, device: str, libraries: int, layer: int, model: int) -> Memory:
    """What one of the ranks has: `found` of the whole, `layer` and `model` bytes of the largest layer and of all."""
    parts = {name: found[name] for name in ("weights", "gradients", "optimizer", "activations", "logits", "workspace")}
    if runtime.ranks > 1 and runtime.shard:
        for name in ("weights", "gradients", "optimizer"):
            parts[name] = -(-parts[name] // runtime.ranks)
        parts["workspace"] += 3 * layer  # two layers are whole at a time, and the gradient of one
    elif runtime.ranks > 1:
        parts["workspace"] += min(4 * BUCKET, model)  # gradients on their way to the other ranks
    if device == "cpu":
        holes = 0 if APART in os.environ else int(HEAP_SHARE * found[""])
        parts["workspace"] += holes + KERNELS
    else:
        parts["workspace"] += int(CUDA_SHARE * sum(parts.values()))
    return Memory(**parts, libraries=libraries)


def largest_step(examples: Examples, params: TrainParams, devices: int = 1, padding_free: bool = False) -> np.ndarray:
    """The rows of the first two forward passes of a rank, of that which has most tokens in these two."""
    best, most = np.arange(0), -1
    sizes, at_once = examples.sizes, max_tokens_per_forward(params, "cpu")
    for rows in epoch_order(len(sizes), params.batch_size, params.seed, 0):
        for passes in split_among_ranks(sizes[rows], devices, at_once, padding_free):
            first = passes[:2]
            tokens = sum(pass_tokens(sizes[rows[one]], padding_free) for one in first)
            if tokens > most:
                best, most = rows[np.concatenate(first)], tokens
    return best


def _without_padding(network: Predictor, examples: Examples) -> PaddingFree | None:
    """Numbers cannot be compared here; an architecture that cannot do without padding says so by itself."""
    try:
        return padding_free(network.model)
    except UnsupportedAttentionError:
        return None


def cut_to(examples: Examples, tokens: int) -> Examples:
    """The same examples with at most so many values in each column."""
    from apf_tasks.examples import token_table

    table = examples.table.to_pydict()
    cut = {name: [v[:tokens] for v in table[name]] if name in examples.columns else table[name] for name in table}
    return Examples(token_table(cut))


def _plain_optimizer(params: TrainParams) -> tuple[TrainParams, float]:
    """Tensors of torchao's own kind, or in the CPU's memory: an optimizer without state instead, and their bytes."""
    if params.optimizer.name not in ("adamw_8bit", "adamw_offload"):
        return params, 0.0
    plain = SGD(name="sgd", momentum=0)
    return params.model_copy(update={"optimizer": plain}), params.optimizer.state_bytes


def _layers(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return (layer for row in model.modules() if isinstance(row, torch.nn.ModuleList) for layer in row)


@contextmanager
def _sorted_by_use(tracker: MemoryTracker, model: torch.nn.Module) -> Iterator[None]:
    """Within the block gradients and the optimizer's tensors are told from the rest."""

    def gradient(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            tracker.note(parameter.grad, "gradients")

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        tracker.kind = "workspace"

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        tracker.kind = "activations"
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    tracker.note(value, "optimizer")

    handles = [p.register_post_accumulate_grad_hook(gradient) for p in model.parameters()]  # type: ignore[no-untyped-call]
    handles += [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
