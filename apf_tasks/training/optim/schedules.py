"""How long a training is, and the factor on the peak learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable

from apf_tasks.params.train import TrainParams


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps in one pass; the last one may have fewer rows."""
    return math.ceil(rows / batch_size)


def total_steps(rows: int, train: TrainParams) -> int:
    """Optimizer steps of the whole training, at least one."""
    return max(1, round(train.epochs * steps_per_epoch(rows, train.batch_size)))


def evaluation_interval(rows: int, train: TrainParams) -> int:
    """Optimizer steps between validations."""
    per_epoch = steps_per_epoch(rows, train.batch_size)
    return train.evaluate_every_steps or max(1, round(train.evaluate_every_epochs * per_epoch))


def linear(progress: float) -> float:
    """Down to zero in a straight line."""
    return 1 - progress


def cosine(progress: float) -> float:
    """Half a cosine (Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """The peak, to the end."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "constant": constant}


def lr_multiplier(name: str, step: int, steps: int, warmup_fraction: float) -> float:
    """Factor for the update number `step` (from 0) of `steps`: a straight rise over the warm-up, then the schedule.

    The first update already moves: its factor is 1/(warm-up steps), not 0.
    """
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[name]((step - warmup) / max(1, steps - warmup))
