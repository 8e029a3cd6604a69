"""A training that is set up: all that the loop needs and changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.data.rows import read_rows
from apf_tasks.evaluation.predictor import Predictor, load_predictor
from apf_tasks.examples import Examples
from apf_tasks.family import Prediction
from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.runtime.devices import reset_peak_memory, seed_everything
from apf_tasks.runtime.ranks import Ranks
from apf_tasks.runtime.sharding import shard
from apf_tasks.sources.models import model_folder
from apf_tasks.training.activation_checkpointing import apply_activation_checkpointing
from apf_tasks.training.attention import PaddingFree, padding_free
from apf_tasks.training.checkpoints import TrainerState, load_checkpoint
from apf_tasks.training.loop import Step, train_steps
from apf_tasks.training.optim.optimizers import check_optimizer, optimizer_of
from apf_tasks.training.optim.schedules import evaluation_interval, total_steps
from apf_tasks.training.padding_free import try_padding_free
from apf_tasks.training.weights import parameter_digests

logger = logging.getLogger("apf")

_computes_without_padding: dict[str, bool] = {}
"""What was tried in this process."""


@dataclass
class TrainingState:
    """One trial under way: what the loop needs, and where it stands."""

    out: Path
    trial: TrainingInputs
    network: Predictor
    optimizer: torch.optim.Optimizer
    examples: Examples
    free: PaddingFree | None
    constants: dict[str, torch.Tensor]
    validation: Examples
    validation_rows: pd.DataFrame
    progress: TrainerState
    best: tuple[list[Prediction], dict[str, float]] | None = None
    """Predictions and settings of the best validation so far; None after a resumption, until there is a better one."""
    validated: tuple[int, dict[str, float]] = (0, {})
    """Step and scores of the last validation since the start of this process."""

    @property
    def params(self) -> TrainParams:
        """How it is trained."""
        return self.trial.params

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.network.place.ranks

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return total_steps(len(self.examples), self.params)

    def steps_to_come(self) -> Generator[Step]:
        """The loop, from where the training stands."""
        return train_steps(
            self.network, self.optimizer, self.examples, self.params, self.progress.step, self.free, self.constants
        )

    @property
    def evaluate_every(self) -> int:
        """Optimizer steps between validations."""
        return evaluation_interval(len(self.examples), self.params)


def prepare_training(out: Path, trial: TrainingInputs) -> TrainingState:
    """Load everything, seeded; go to the checkpoint if there is one."""
    params, model = trial.params, trial.model
    seed_everything(params.seed)
    network = load_predictor(model_folder(model), model, trial.family, trial.train.label_names, trial.runtime)
    examples = Examples.of(trial.train)
    check_optimizer(params, trial.runtime, network.place.device.type, network.place.ranks.count)
    say_idle_ranks(len(examples), params.batch_size, network.place.ranks)
    free, optimizer = set_up(network, examples, params, trial.runtime, partial(_try_once, trial))
    reset_peak_memory(network.place.device)
    progress = load_checkpoint(out, network.model, optimizer)
    return TrainingState(
        out=out,
        trial=trial,
        network=network,
        optimizer=optimizer,
        examples=examples,
        free=free,
        constants=constants_of(network, trial.train),
        validation=Examples.of(trial.validation),
        validation_rows=read_rows(trial.validation.path / "rows.parquet"),
        progress=progress or TrainerState(initial_digests=parameter_digests(network.model)),
    )


def say_idle_ranks(rows: int, batch_size: int, ranks: Ranks) -> None:
    """Where a step of the training has fewer rows than there are ranks, some of them only wait."""
    whole, last = min(rows, batch_size), rows % batch_size
    idle = "some ranks compute nothing: a step has %d row(s), fewer than the %d ranks; raise train.batch_size"
    if whole < ranks.count:
        logger.warning("           " + idle, whole, ranks.count)
    elif 0 < last < ranks.count:
        logger.warning("           in the last step of an epoch " + idle, last, ranks.count)


def set_up(
    network: Predictor,
    examples: Examples,
    params: TrainParams,
    runtime: RuntimeParams,
    without_padding: Callable[[Predictor, Examples], PaddingFree | None] = try_padding_free,
) -> tuple[PaddingFree | None, torch.optim.Optimizer]:
    """Make the model trainable, in place. Returns how it computes without padding, if it can, and the optimizer.

    A memory plan calls it too, with a model without numbers.
    """
    network.model.requires_grad_(True)
    free = without_padding(network, examples)
    if runtime.precision == "pure_bf16":
        for tensor in (*network.model.parameters(), *network.model.buffers()):  # `to` fails on tensors without numbers
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.bfloat16)
    if network.place.sharded:
        shard(network.model, network.place.ranks, network.place.device, network.place.dtype)
    apply_activation_checkpointing(network.model, runtime.activations)
    return free, optimizer_of(network.model, params, runtime)


def _try_once(trial: TrainingInputs, network: Predictor, examples: Examples) -> PaddingFree | None:
    """`try_padding_free` once for a base and its rows, not in every rung of a search."""
    key = trial.model.model_dump_json() + trial.runtime.model_dump_json() + trial.train.fingerprint
    if key not in _computes_without_padding:
        free = try_padding_free(network, examples)
        _computes_without_padding[key] = free is not None
        return free
    return padding_free(network.model) if _computes_without_padding[key] else None


def constants_of(network: Predictor, train: TokenizedSplit) -> dict[str, torch.Tensor]:
    """What the family wants every training batch to carry."""
    if network.family.constants is None:
        return {}
    found = network.family.constants(read_rows(train.path / "rows.parquet"), network.label_names)
    return {name: tensor.to(network.place.device) for name, tensor in found.items()}
