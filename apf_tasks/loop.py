"""The training loop, a generator. Logging, saving and stopping are the caller's.

B examples, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from apf_tasks.batching import (
    Examples,
    choose,
    collate,
    collate_packed,
    count_targets,
    epoch_order,
    micro_batches,
    pack,
)
from apf_tasks.errors import Diverged
from apf_tasks.families import Columns
from apf_tasks.network import Network
from apf_tasks.params import TrainParams
from apf_tasks.runtime import autocast
from apf_tasks.schedules import factor, steps_per_epoch, total_steps

MICRO_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16384}
"""Padded tokens per forward pass where the params do not say."""
PACKED_TOLERANCE = 1e-3
"""Relative difference of a packed and a padded loss that rounding explains."""
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Step:
    """What one optimizer step did."""

    step: int
    """From 1."""
    epoch: float
    loss: float
    """Mean over the targets of the step."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""
    learning_rate: float
    tokens: int
    padded_tokens: int
    seconds: float


def train_steps(
    network: Network,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    train: TrainParams,
    start: int = 0,
    packed: bool = False,
    constants: Batch | None = None,
) -> Iterator[Step]:
    """Yield after every optimizer step, from step `start` + 1 on. Raises Diverged before a bad update is applied."""
    model, family, place = network.model, network.family, network.place
    per_epoch = steps_per_epoch(len(examples), train.batch_size)
    steps = total_steps(len(examples), train)
    order: list[np.ndarray] = []
    for step in range(start, steps):
        started = time.perf_counter()
        epoch = step // per_epoch
        if step % per_epoch == 0 or not order:
            order = epoch_order(examples.sizes, train.batch_size, train.seed, epoch)
        rows = order[step % per_epoch]
        columns = examples.take(rows)
        if family.draw is not None:
            columns = family.draw(columns, network.base, (train.seed, epoch))
        targets = max(1, count_targets(columns))
        learning_rate = train.learning_rate * factor(train.schedule, step, steps, train.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        model.train()
        loss, padded = torch.zeros((), device=place.device), 0
        for batch in _batches(columns, examples.sizes[rows], network, train.micro_batch_tokens, packed):
            with autocast(place.device, place.dtype):
                # every target weighs the same, however rows are cut
                part = family.loss(model, batch | (constants or {})) / targets
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            padded += batch["input_ids"].numel()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm or math.inf)
        _check_finite(float(loss), float(norm), step + 1, learning_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            loss=float(loss),
            grad_norm=float(norm),
            learning_rate=learning_rate,
            tokens=int(examples.lengths[rows].sum()),
            padded_tokens=padded,
            seconds=time.perf_counter() - started,
        )


def _batches(
    columns: Columns, sizes: np.ndarray, network: Network, micro_tokens: int | None, packed: bool
) -> Iterator[Batch]:
    """The examples of a step as forward passes of at most `micro_tokens`, padded or packed."""
    device, pad_id = network.place.device, network.base.pad_id
    most = micro_tokens or MICRO_BATCH_TOKENS[device.type]
    if not packed:
        for micro in micro_batches(np.arange(len(sizes)), sizes, most):
            yield collate(choose(columns, micro.tolist()), pad_id, device)
        return
    sequences = pack(sizes.tolist(), max(int(sizes.max()), min(network.base.max_tokens, most)))
    at_once = max(1, most // network.base.max_tokens)
    for first in range(0, len(sequences), at_once):
        yield collate_packed(columns, sequences[first : first + at_once], pad_id, device)


@torch.no_grad()
def packs_alike(network: Network, examples: Examples) -> bool:
    """Whether this model gives three short examples the same loss packed into one sequence as padded beside each other.

    An architecture that does not restart its attention where positions restart is found out here.
    """
    columns = examples.take(np.argsort(examples.lengths, kind="stable")[:3])
    lengths = [len(ids) for ids in columns["input_ids"]]
    if sum(lengths) > network.base.max_tokens:
        return False
    device, pad_id = network.place.device, network.base.pad_id
    network.model.train(False)
    try:
        padded = network.family.loss(network.model, collate(columns, pad_id, device))
        packed = network.family.loss(
            network.model, collate_packed(columns, [[0, 1, 2][: len(lengths)]], pad_id, device)
        )
    except (RuntimeError, ValueError, TypeError):
        return False
    return bool(torch.isclose(packed, padded, rtol=PACKED_TOLERANCE))


def _check_finite(loss: float, norm: float, step: int, learning_rate: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    found = f"loss {loss}, gradient norm {norm} at learning rate {learning_rate:g}"
    do = "Lower train.learning_rate, lengthen train.warmup_fraction, or write runtime.precision: fp32."
    raise Diverged(f"training step {step}", "a finite loss and gradient", found, do)
