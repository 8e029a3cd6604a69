"""How fast a training would be here: a few real steps on its real rows, and a few rows of validation. Keeps nothing."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from apf_tasks.batching import Examples
from apf_tasks.estimates import Training
from apf_tasks.loop import packs_alike, train_steps
from apf_tasks.model_sources import model_folder
from apf_tasks.network import load_network, predict_pieces
from apf_tasks.rows import read_rows
from apf_tasks.runtime import seed_everything

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

    def seconds(self, training: Training) -> float:
        """Of a whole training on the same rows: steps and validations, without loading and checkpoints."""
        tokens = training.arguments["train"].tokens * training.params.epochs
        return float(tokens) / self.tokens_per_second + (training.validations or 0) * self.validation_seconds


def measure(training: Training) -> Speed:
    """Load the model and run a few optimizer steps of `training`, whose rows have to be tokenized."""
    given, params = training.arguments, training.params
    train, validation, model = given["train"], given["validation"], given["model"]
    seed_everything(params.seed)
    network = load_network(model_folder(model), model, given["family"], train.label_names, given["runtime"])
    examples, asked = Examples.of(train), Examples.of(validation)
    packed = network.family.packs and packs_alike(network, examples)
    tell = network.family.constants
    told = {} if tell is None else tell(read_rows(train.path / "rows.parquet"), network.label_names)
    constants = {name: tensor.to(network.place.device) for name, tensor in told.items()}
    optimizer = params.optimizer.build(network.model, params.learning_rate, params.weight_decay)
    started, counted = time.perf_counter(), []
    for step in train_steps(network, optimizer, examples, params, 0, packed, constants):
        counted.append(step)
        enough = len(counted) >= FIRST_STEPS + MOST_STEPS or time.perf_counter() - started > MOST_SECONDS
        if enough and len(counted) > FIRST_STEPS:
            break
    counted = counted[FIRST_STEPS:] or counted[-1:]  # a tiny training has no more steps
    chosen = np.linspace(0, len(asked) - 1, min(len(asked), VALIDATION_EXAMPLES)).astype(np.int64)
    few = Examples(asked.table.take(np.unique(chosen)))
    started = time.perf_counter()
    predict_pieces(network, few)
    seconds = (time.perf_counter() - started) * len(asked) / len(few)
    rate = sum(step.tokens for step in counted) / sum(step.seconds for step in counted)
    return Speed(len(counted), rate, seconds)
