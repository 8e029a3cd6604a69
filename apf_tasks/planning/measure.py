"""How fast a training would be here: a few real steps on its real rows, and a few rows of validation. Keeps nothing."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apf_tasks.evaluation.predictor import predict_examples
from apf_tasks.examples import Examples
from apf_tasks.inputs import TrainingInputs
from apf_tasks.planning.estimates import Training
from apf_tasks.runtime.devices import choose_device, peak_memory_gib, reset_peak_memory
from apf_tasks.training.state import prepare_training

FIRST_STEPS = 2
"""Not counted: memory is set up in them."""
MOST_STEPS = 10
MOST_SECONDS = 30
"""Steps are run until the one or the other; one is counted at least."""
VALIDATION_EXAMPLES = 32


class Speed(NamedTuple):
    """What was measured."""

    steps: int
    tokens_per_second: float
    """Useful tokens of training."""
    validation_seconds: float
    """Of one pass over the validation split."""
    peak_gib: float
    """Peak memory of these steps: allocated on CUDA, resident for the process elsewhere."""

    def seconds(self, training: Training) -> float:
        """Of a whole training on the same rows: steps and validations, without loading and checkpoints."""
        share = (training.steps or 0) / (training.whole_steps or 1)  # of the training that a search cuts short
        tokens = training.arguments["train"].tokens * training.params.epochs * share
        return float(tokens) / self.tokens_per_second + (training.validations or 0) * self.validation_seconds


def measure_speed(training: Training) -> Speed:
    """Load the model and run a few optimizer steps of `training`, whose rows have to be tokenized."""
    device = choose_device(training.arguments["runtime"])
    reset_peak_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        ready = prepare_training(
            Path(folder), TrainingInputs(*(training.arguments[name] for name in TrainingInputs._fields))
        )
    loop = ready.steps_to_come()
    started, counted = time.perf_counter(), []
    for step in loop:
        counted.append(step)
        enough = len(counted) >= FIRST_STEPS + MOST_STEPS or time.perf_counter() - started > MOST_SECONDS
        if enough and len(counted) > FIRST_STEPS:
            break
    counted = counted[FIRST_STEPS:] or counted[-1:]  # a tiny training has no more steps
    chosen = np.linspace(0, len(ready.validation) - 1, min(len(ready.validation), VALIDATION_EXAMPLES)).astype(np.int64)
    few = Examples(ready.validation.table.take(np.unique(chosen)))
    started = time.perf_counter()
    predict_examples(ready.network, few, answering=False)
    seconds = (time.perf_counter() - started) * len(ready.validation) / len(few)
    rate = sum(step.tokens for step in counted) / sum(step.seconds for step in counted)
    return Speed(len(counted), rate, seconds, peak_memory_gib(device))
