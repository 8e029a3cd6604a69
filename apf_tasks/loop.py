"""The training loop, a generator, and batched prediction. Logging, saving and stopping are the caller's.

B examples, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from apf_tasks.batching import Examples, epoch_order, micro_batches
from apf_tasks.errors import Diverged
from apf_tasks.families import Family
from apf_tasks.params import TrainParams
from apf_tasks.runtime import autocast
from apf_tasks.schedules import factor

MICRO_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16384}
"""Padded tokens per forward pass where the params do not say."""
EVALUATION_TOKENS = {"cpu": 4096, "mps": 16384, "cuda": 65536}
"""The same without gradients, where activations are not kept."""


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


@dataclass(frozen=True)
class Place:
    """Where and how precisely the loop computes."""

    device: torch.device
    dtype: torch.dtype


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps in one pass; the last one may have fewer rows."""
    return math.ceil(rows / batch_size)


def total_steps(rows: int, train: TrainParams) -> int:
    """Optimizer steps of the whole training, at least one."""
    return max(1, round(train.epochs * steps_per_epoch(rows, train.batch_size)))


def train_steps(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    family: Family,
    train: TrainParams,
    place: Place,
    pad_id: int,
    start: int = 0,
) -> Iterator[Step]:
    """Yield after every optimizer step, from step `start` + 1 on. Raises Diverged before a bad update is applied."""
    per_epoch = steps_per_epoch(len(examples), train.batch_size)
    steps = total_steps(len(examples), train)
    micro_tokens = train.micro_batch_tokens or MICRO_BATCH_TOKENS[place.device.type]
    order: list[np.ndarray] = []
    for step in range(start, steps):
        started = time.perf_counter()
        if step % per_epoch == 0 or not order:
            order = epoch_order(examples.lengths, train.batch_size, train.seed, step // per_epoch)
        rows = order[step % per_epoch]
        targets = int(examples.targets[rows].sum())
        learning_rate = train.learning_rate * factor(train.schedule, step, steps, train.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        model.train()
        loss, padded = torch.zeros((), device=place.device), 0
        for micro in micro_batches(rows, examples.lengths, micro_tokens):
            batch = examples.collate(micro, pad_id, place.device)
            with autocast(place.device, place.dtype):
                part = family.loss(model, batch) / max(1, targets)  # every target weighs the same, however rows are cut
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


def _check_finite(loss: float, norm: float, step: int, learning_rate: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    found = f"loss {loss}, gradient norm {norm} at learning rate {learning_rate:g}"
    do = "Lower train.learning_rate, lengthen train.warmup_fraction, or write runtime.precision: fp32."
    raise Diverged(f"training step {step}", "a finite loss and gradient", found, do)


@torch.inference_mode()
def predict(
    model: PreTrainedModel,
    examples: Examples,
    family: Family,
    label_names: Sequence[str],
    place: Place,
    pad_id: int,
) -> list[dict[str, Any]]:
    """The family's prediction for every example, in their order; computed longest first, so little is padding."""
    model.train(False)
    found: list[dict[str, Any]] = [{}] * len(examples)
    for rows in micro_batches(np.arange(len(examples)), examples.lengths, EVALUATION_TOKENS[place.device.type]):
        batch = examples.collate(rows, pad_id, place.device)
        batch.pop("labels", None)
        with autocast(place.device, place.dtype):
            predictions = family.predict(model, batch, label_names)
        for row, prediction in zip(rows, predictions, strict=True):
            found[row] = prediction
    return found
