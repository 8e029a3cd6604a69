"""What the trainings of a plan would take: steps, disk, and how to learn the time. Imports no torch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apf_tasks.artifacts import Split, TokenizedSplit
from apf_tasks.cache import store
from apf_tasks.cache.journal import StageRun
from apf_tasks.errors import ApfError
from apf_tasks.params.experiment import Params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.planning._usual_rates import check_learning_rates, kind_of
from apf_tasks.sources.models import BUILT, model_folder
from apf_tasks.tracking.registry import REGISTRY
from apf_tasks.training.optim.schedules import evaluation_interval, total_steps

KEPT_BYTES = 4
"""Bytes per parameter in the store after a training: float32 weights."""
MOST_BYTES = 36
"""And while it trains: a checkpoint of weights and AdamW's two moments is written beside the one it replaces, there are
the best weights up to then and those before them, and at the end the model."""
GIB = 2**30


@dataclass(frozen=True)
class Training:
    """One training that would run."""

    label: str
    params: TrainParams
    arguments: dict[str, Any]
    """What the stage would take."""
    examples: int | None
    exact: bool
    """Whether the examples have been counted, or stand for the rows of the split."""
    until: int | None = None
    """The last step before the search compares it with others, which may end it there; None when it reaches its end."""

    @property
    def whole_steps(self) -> int | None:
        """Optimizer steps to its end."""
        return None if self.examples is None else total_steps(self.examples, self.params)

    @property
    def steps(self) -> int | None:
        """Optimizer steps that are planned, unless patience ends it earlier."""
        return self.whole_steps if self.until is None else self.until

    @property
    def validations(self) -> int | None:
        """How often it is scored on validation, the end included."""
        if self.examples is None or self.steps is None:
            return None
        return math.ceil(self.steps / evaluation_interval(self.examples, self.params))


@dataclass(frozen=True)
class Estimate:
    """What the trainings of a plan would take."""

    trainings: tuple[Training, ...]
    parameters: int | None
    """Stored with the base; a new head is not among them. None when the base is not at hand."""
    free_bytes: int
    warnings: tuple[str, ...] = field(default=())

    @property
    def steps(self) -> int | None:
        """Of all trainings together."""
        counts = [training.steps for training in self.trainings]
        return None if None in counts else sum(count or 0 for count in counts)

    @property
    def trained_bytes(self) -> int | None:
        """Memory of the training that takes most, on each device, without activations and libraries: weights, gradients
        unless they are used up in the backward pass, and what the optimizer keeps.
        """
        if self.parameters is None:
            return None
        return max(int(_bytes_each(training) * (self.parameters or 0)) for training in self.trainings)

    @property
    def memory_parts(self) -> str:
        """What these bytes are for."""
        most = max(self.trainings, key=_bytes_each).params
        gradients = "" if most.step_in_backward else ", gradients"
        return f"weights{gradients} and {most.optimizer.name}"

    @property
    def kept_bytes(self) -> int | None:
        """Of one training, in the store."""
        return None if self.parameters is None else KEPT_BYTES * self.parameters

    @property
    def most_bytes(self) -> int | None:
        """Needed until the last training has ended."""
        if self.parameters is None:
            return None
        return self.parameters * (KEPT_BYTES * (len(self.trainings) - 1) + MOST_BYTES)


def _bytes_each(training: Training) -> float:
    """Bytes of memory per parameter of a training, on each device."""
    params, runtime = training.params, training.arguments.get("runtime")
    ranks = runtime.ranks if isinstance(runtime, RuntimeParams) and runtime.shard else 1
    float32 = 4 + (0 if params.step_in_backward else 4) + params.optimizer.state_bytes
    pure = isinstance(runtime, RuntimeParams) and runtime.precision == "pure_bf16"
    return (float32 / 2 if pure else float32) / ranks


def estimate(stage_runs: Sequence[StageRun], params: Params) -> Estimate | None:
    """What the trainings among the visits of a plan would take; None when none would run.

    A search that compares trials on their way is estimated with any of them going on: only their number counts.
    """
    wanted = ("train_rung", "train_model")
    # of the visits of one trial the last goes furthest
    planned = {
        stage_run.label: stage_run
        for stage_run in stage_runs
        if stage_run.stage in wanted and stage_run.status == "runs"
    }
    if not planned:
        return None
    rows = next(
        (stage_run.handle.rows["train"] for stage_run in stage_runs if isinstance(stage_run.handle, Split)), None
    )
    trainings = tuple(_training(stage_run, rows) for stage_run in planned.values())
    folder = folder_at_hand(trainings[0].arguments)
    parameters = None if folder is None else count_parameters(folder)
    root = next(p for p in (store.root(), *store.root().parents) if p.exists())
    free = shutil.disk_usage(root).free
    kind = kind_of(params.model, folder, params.family.name)
    found = Estimate(trainings, parameters, free)
    warnings = check_learning_rates(kind, [training.params for training in trainings])
    if found.most_bytes is not None and found.most_bytes > free:
        warnings.append(f"{found.most_bytes / GIB:.1f} GiB needed under {store.root()}, {free / GIB:.1f} GiB free.")
    return Estimate(trainings, parameters, free, tuple(warnings))


def _training(stage_run: StageRun, rows: int | None) -> Training:
    train, until = stage_run.arguments["train"], stage_run.arguments.get("until")
    known = isinstance(train, TokenizedSplit)
    return Training(
        label=stage_run.label,
        params=stage_run.arguments["params"],
        arguments=dict(stage_run.arguments),
        examples=train.examples if known else rows,
        exact=known,
        until=until if isinstance(until, int) else None,
    )


def folder_at_hand(arguments: dict[str, Any]) -> Path | None:
    """The folder of a training's base, if no download, conversion or mlflow is needed to find it."""
    model = arguments["model"]
    if not isinstance(model, ModelParams) or model.base.startswith(REGISTRY):
        return None
    was_used = isinstance(arguments["train"], TokenizedSplit)  # then its files are here
    local = Path(model.base).expanduser()
    if not (was_used or local.is_dir() or model.base.startswith(BUILT)):
        return None
    try:
        return model_folder(model)
    except ApfError:
        return None


def count_parameters(folder: Path) -> int | None:
    """Numbers in the folder's safetensors, read from their headers alone; None when there are none.

    A file begins with the length of its header in 8 bytes, then the header: JSON with the shape of every tensor
    (https://huggingface.co/docs/safetensors).
    """
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length) if length < path.stat().st_size else b"")
            count += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError):
            return None
    return count or None
