"""Successive halving: how many rungs, where they lie, how many trials go on."""

from __future__ import annotations

import math

from apf_tasks.params.search import HalvingParams


def rung_count(steps: int, halving: HalvingParams | None) -> int:
    """How often trials of `steps` optimizer steps are compared before their end."""
    if halving is None or steps <= halving.min_steps:
        return 0
    return math.floor(math.log(steps / halving.min_steps, halving.eta) + 1e-9)


def rung_step(steps: int, rungs_left: int, halving: HalvingParams) -> int:
    """The step of a trial of `steps` at which so many rungs and the end are still to come."""
    return max(1, min(steps, round(steps / halving.eta**rungs_left)))


def survivors(count: int, halving: HalvingParams) -> int:
    """How many of `count` trials go on."""
    return math.ceil(count / halving.eta)


def expected_steps(trials: int, steps: int, rungs: int, halving: HalvingParams | None) -> int:
    """Optimizer steps of a search over so many trials of equal length."""
    if halving is None or not rungs:
        return trials * steps
    total, before = 0, 0
    for left in range(rungs, -1, -1):
        until = rung_step(steps, left, halving) if left else steps
        total += trials * (until - before)
        trials, before = survivors(trials, halving), until
    return total
