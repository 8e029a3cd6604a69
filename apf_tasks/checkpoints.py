"""A resumable training state on disk: written beside, flushed, renamed; never half there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from transformers import PreTrainedModel

from apf_tasks.frozen import Frozen
from apf_tasks.ranks import here
from apf_tasks.sharding import load_model_state, load_optimizer_state, whole_state

CHECKPOINT = "checkpoint.pt"


class Progress(Frozen):
    """Everything of a training besides tensors. The step is the data position too."""

    step: int = 0
    best_step: int = 0
    best_scores: dict[str, float] = Field(default_factory=dict)
    validations_without_gain: int = 0
    train_seconds: float = 0
    tokens: int = 0
    padded_tokens: int = 0
    initial_digests: dict[str, str] = Field(default_factory=dict)
    """Parameter name -> digest of its values before the first step."""
    stopped: bool = False
    """Early stopping has decided."""


def save_checkpoint(out: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Replace the checkpoint under `out` in one rename. For all ranks at once; the first one writes."""
    tensors = whole_state({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    state = tensors | {"progress": progress.model_dump_json()}
    if not here().first:
        return
    beside = out / f"{CHECKPOINT}.new"
    with beside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(out / CHECKPOINT)


def load_checkpoint(out: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Put model and optimizer back to the checkpoint under `out`; None when there is none."""
    path = out / CHECKPOINT
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    load_model_state(model, state["model"])
    load_optimizer_state(optimizer, state["optimizer"])
    return Progress.model_validate_json(state["progress"])
