"""The training loop, a generator. Logging, saving and stopping are the caller's.

B examples, T tokens.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from apf_tasks.errors import DivergedError, ModelError
from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.examples import Examples
from apf_tasks.params.train import TrainParams
from apf_tasks.runtime.devices import autocast
from apf_tasks.runtime.sharding import full_tensor
from apf_tasks.training._dropout import dropout_by_row
from apf_tasks.training._embedding_gradients import sparse_embedding_gradients
from apf_tasks.training.attention import PaddingFree
from apf_tasks.training.optim.from_params import set_learning_rate
from apf_tasks.training.optim.joined import OptimizerInBackward
from apf_tasks.training.optim.schedules import lr_multiplier, steps_per_epoch, total_steps
from apf_tasks.training.step_loader import Batch, StepBatch, StepLoader

logger = logging.getLogger("apf")

MICRO_BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 16384}
"""Padded tokens per forward pass where the params do not say."""


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
    waited: float
    """Seconds of these until its rows were there."""
    rank_tokens: tuple[int, int]
    """Of the rank that had least, and of the one that had most."""


def train_steps(
    network: Predictor,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    train: TrainParams,
    start: int = 0,
    free: PaddingFree | None = None,
    constants: Batch | None = None,
) -> Generator[Step]:
    """Yield after every optimizer step, from step `start` + 1 on.

    Raises DivergedError before a bad update is applied.
    """
    per_epoch = steps_per_epoch(len(examples), train.batch_size)
    steps = total_steps(len(examples), train)
    feed = StepLoader(
        network, examples, train, free is not None, max_tokens_per_forward(train, network.place.device.type)
    )
    started = time.perf_counter()
    for ready in feed.steps(start, steps):
        waited = time.perf_counter() - started
        learning_rate = train.learning_rate * lr_multiplier(train.schedule, ready.step, steps, train.warmup_fraction)
        set_learning_rate(optimizer, learning_rate)
        loss, padded = _gradient_of_step(feed, ready, optimizer, constants or {}, free)
        clipped = (
            optimizer.norm()
            if isinstance(optimizer, OptimizerInBackward)
            else _clip(network.model, train.max_grad_norm)
        )
        norm = float(clipped)
        _check_finite(loss, norm, ready.step + 1, learning_rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Step(
            step=ready.step + 1,
            epoch=(ready.step + 1) / per_epoch,
            loss=loss,
            grad_norm=norm,
            learning_rate=learning_rate,
            tokens=int(examples.lengths[ready.rows].sum()),
            padded_tokens=int(padded),
            seconds=time.perf_counter() - started,
            waited=waited,
            rank_tokens=ready.rank_tokens,
        )
        started = time.perf_counter()


def max_tokens_per_forward(train: TrainParams, device: str) -> int:
    """Padded tokens of a forward pass at most, on such a kind of device."""
    if train.step_in_backward:
        return sys.maxsize
    return train.micro_batch_tokens or MICRO_BATCH_TOKENS[device]


def _gradient_of_step(
    feed: StepLoader,
    ready: StepBatch,
    optimizer: torch.optim.Optimizer,
    constants: Batch,
    free: PaddingFree | None,
) -> tuple[float, float]:
    """Give every rank the gradient of the whole step. Returns its loss and its padded tokens.

    In smaller passes from here on, on all ranks, when it does not fit into the memory of one.
    """
    network, place = feed.network, feed.network.place
    while True:
        loss, padded, problem = 0.0, 0.0, ""
        try:
            loss, padded = _accumulate_gradients(network, ready, feed.train, constants, free)
        except torch.OutOfMemoryError as error:
            problem = str(error).splitlines()[0]
            if place.sharded:  # the other ranks wait within a pass
                raise _too_large(ready.largest, problem) from error
        loss, padded, failed = place.ranks.all_reduce_sum([loss, padded, bool(problem)])
        if not failed:
            if not place.sharded:
                place.ranks.sum_gradients(network.model)
            return loss, padded
        optimizer.zero_grad(set_to_none=True)
        problem = next(filter(None, place.ranks.gather(problem)))
        feed.most = _halve_micro_batch(feed.most, ready, int(feed.examples.sizes[ready.rows].max()), problem)
        ready = feed.resplit(ready)


def _accumulate_gradients(
    network: Predictor, ready: StepBatch, train: TrainParams, constants: Batch, free: PaddingFree | None
) -> tuple[float, float]:
    """Add up the gradient of this rank's part of a step, pass by pass. Gives its loss and its padded tokens."""
    model, place = network.model, network.place
    loss, padded = torch.zeros((), device=place.device), 0
    model.train()
    whole_only = place.sharded or train.step_in_backward  # their hooks are called with the gradient of a tensor
    rows = sparse_embedding_gradients(place.device.type == "cpu" and not whole_only)
    # weights are cast once, not by every pass
    drops = dropout_by_row(place.device, train.seed, ready.step)
    with autocast(place.device, place.dtype), drops as draws, rows as used:
        for one in ready.passes:
            here = {name: tensor.to(place.device, non_blocking=True) for name, tensor in one.batch.items()}
            torch.manual_seed(pass_seed(train.seed, ready.step, int(one.rows[0])))  # where a device draws for a pass
            draws.begin(one.rows, one.lengths, free)
            with free.batch(here, one.lengths) if free else nullcontext():
                # every target weighs the same, however rows are cut
                part = network.family.loss(model, here | constants) * (one.weight / ready.targets)
                with torch.autocast(place.device.type, enabled=False):
                    part.backward()  # type: ignore[no-untyped-call]
            used.add()
            if place.sharded:
                torch.clear_autocast_cache()  # no rank keeps the weights of the others
            loss += part.detach()
            padded += one.weight * (sum(one.lengths["input_ids"]) if free else here["input_ids"].numel())
    return float(loss), padded


def _halve_micro_batch(most: int, ready: StepBatch, longest: int, problem: str) -> int:
    """Tokens of a forward pass after one did not fit: half. Raises ModelError when that cannot help."""
    now = min(most, ready.largest)
    if now <= longest or most == sys.maxsize:
        raise _too_large(now, problem)
    logger.warning("           out of memory: from now on at most %s padded tokens per forward pass", now // 2)
    return now // 2


def _too_large(most: int, problem: str) -> ModelError:
    found = f"{problem} (a forward pass of up to {most:,} tokens)"
    do = "Write runtime.activations=recompute, a smaller model.max_tokens, or train.optimizer.name=adafactor."
    return ModelError("training", "a forward and backward pass that fit into memory", found, do)


def pass_seed(seed: int, step: int, row: int) -> int:
    """Seed of the dropout of one forward pass, by its first row: nothing has to be kept to resume."""
    return int(np.random.SeedSequence([seed, step, row]).generate_state(1, np.uint64)[0])


def _clip(model: PreTrainedModel, most: float | None) -> torch.Tensor:
    """Scale the gradient down to the L2 norm `most`. Gives the norm before."""
    return full_tensor(torch.nn.utils.clip_grad_norm_(model.parameters(), most or math.inf))


def _check_finite(loss: float, norm: float, step: int, learning_rate: float) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    found = f"loss {loss}, gradient norm {norm} at learning rate {learning_rate:g}"
    do = "Lower train.learning_rate, lengthen train.warmup_fraction, or write runtime.precision: fp32."
    raise DivergedError(f"training step {step}", "a finite loss and gradient", found, do)
