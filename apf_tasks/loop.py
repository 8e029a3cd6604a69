"""The training loop, a generator. Logging, saving and stopping are the caller's.

B examples, T tokens.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

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
from apf_tasks.errors import Diverged, ModelError
from apf_tasks.families import Columns
from apf_tasks.joined_optimizer import InBackward
from apf_tasks.network import Network, Place
from apf_tasks.params import TrainParams
from apf_tasks.runtime import autocast
from apf_tasks.schedules import factor, steps_per_epoch, total_steps
from apf_tasks.sharding import whole

logger = logging.getLogger("apf")

MICRO_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16384}
"""Padded tokens per forward pass where the params do not say."""
PACKED_TOLERANCE = 1e-3
"""Relative difference of a packed and a padded loss that rounding explains."""
Batch = dict[str, torch.Tensor]
Pass = list[list[int]]
"""Sequences of a forward pass, each by the positions of its examples in the step: one where nothing is packed."""


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
    model, family = network.model, network.family
    per_epoch = steps_per_epoch(len(examples), train.batch_size)
    steps = total_steps(len(examples), train)
    most = sys.maxsize if train.step_in_backward else train.micro_batch_tokens
    most = most or MICRO_BATCH_TOKENS[network.place.device.type]
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
        learning_rate = train.learning_rate * factor(train.schedule, step, steps, train.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        done = None
        while done is None:
            passes = _passes(examples.sizes[rows], network, most, packed)
            seeds = [pass_seed(train.seed, step, number) for number in range(len(passes))]
            try:
                done = _gradients(network, columns, passes, seeds, packed, constants or {})
            except torch.OutOfMemoryError as error:
                most = _less(most, examples.sizes[rows], train, network.place, error)
                optimizer.zero_grad(set_to_none=True)
        norm = float(optimizer.norm() if isinstance(optimizer, InBackward) else _clip(model, train.max_grad_norm))
        _check_finite(done[0], norm, step + 1, learning_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            loss=done[0],
            grad_norm=norm,
            learning_rate=learning_rate,
            tokens=int(examples.lengths[rows].sum()),
            padded_tokens=int(done[1]),
            seconds=time.perf_counter() - started,
        )


def _gradients(
    network: Network, columns: Columns, passes: list[Pass], seeds: Sequence[int], packed: bool, constants: Batch
) -> tuple[float, float]:
    """Add up the gradient of a step, pass by pass. Gives its loss and its padded tokens."""
    model, place = network.model, network.place
    targets = max(1, count_targets(columns))
    model.train()
    loss, padded = torch.zeros((), device=place.device), 0
    for number, weight in _my_passes(passes, place):
        batch = _batch(columns, passes[number], network, packed)
        torch.manual_seed(seeds[number])  # dropout is the same whoever computes the pass
        with autocast(place.device, place.dtype):
            # every target weighs the same, however rows are cut
            part = network.family.loss(model, batch | constants) * (weight / targets)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.detach()
        padded += weight * batch["input_ids"].numel()
    whole_loss, whole_padded = place.ranks.total([float(loss), padded])
    if not place.sharded:
        place.ranks.sum_gradients(model)
    return whole_loss, whole_padded


def _less(most: int, sizes: np.ndarray, train: TrainParams, place: Place, error: torch.OutOfMemoryError) -> int:
    """Tokens of a forward pass after one did not fit: half. Raises ModelError when that cannot help."""
    longest, most = int(sizes.max()), min(most, int(sizes.max()) * len(sizes))
    if train.step_in_backward or most <= longest or place.ranks.count > 1:
        found = f"{str(error).splitlines()[0]} (a forward pass of up to {most:,} tokens)"
        do = "Write runtime.activations=recompute, a smaller model.max_tokens, or train.optimizer.name=adafactor."
        raise ModelError("training", "a forward and backward pass that fit into memory", found, do) from error
    logger.warning("           out of memory: from here on at most %s padded tokens in a forward pass", most // 2)
    return most // 2


def _passes(sizes: np.ndarray, network: Network, most: int, packed: bool) -> list[Pass]:
    """The examples of a step as forward passes of at most so many tokens, padded or packed."""
    if not packed:
        return [[[i] for i in micro.tolist()] for micro in micro_batches(np.arange(len(sizes)), sizes, most)]
    sequences = pack(sizes.tolist(), max(int(sizes.max()), min(network.base.max_tokens, most)))
    at_once = max(1, most // network.base.max_tokens)
    return [sequences[first : first + at_once] for first in range(0, len(sequences), at_once)]


def _my_passes(passes: Sequence[Pass], place: Place) -> list[tuple[int, int]]:
    """The passes of this rank by their number, and what each weighs: 1, or 0 where a rank keeps the others company.

    Ranks that share one copy of the model go through it together, so that all have the same number of passes.
    """
    mine = [(number, 1) for number in place.ranks.share([len(one) for one in passes], even=place.sharded)]
    missing = -(-len(passes) // place.ranks.count) - len(mine) if place.sharded else 0
    return mine + [(0, 0)] * missing


def _batch(columns: Columns, one: Pass, network: Network, packed: bool) -> Batch:
    """The tensors of a pass."""
    device, pad_id = network.place.device, network.base.pad_id
    if packed:
        return collate_packed(columns, one, pad_id, device)
    return collate(choose(columns, [i for sequence in one for i in sequence]), pad_id, device)


def pass_seed(seed: int, step: int, number: int) -> int:
    """Seed of the dropout of one forward pass. A function of where it stands: nothing has to be kept to resume."""
    return int(np.random.SeedSequence([seed, step, number]).generate_state(1, np.uint64)[0])


def _clip(model: PreTrainedModel, most: float | None) -> torch.Tensor:
    """Scale the gradient down to the L2 norm `most`. Gives the norm before."""
    return whole(torch.nn.utils.clip_grad_norm_(model.parameters(), most or math.inf))


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
