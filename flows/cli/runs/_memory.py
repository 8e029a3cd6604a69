"""The peak memory of a plan's trainings on a device: part by part, and what to change when it does not fit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from apf_tasks.inputs import TrainingInputs
from apf_tasks.planning._memory_advice import Change, memory_options
from apf_tasks.planning.devices import GIB, memory_bytes, size
from apf_tasks.planning.estimates import Training
from apf_tasks.planning.memory import Memory, predict

MEANT = {
    "weights": "float32, including the model's buffers",
    "gradients": "float32",
    "optimizer": "its state for each parameter",
    "activations": "kept by the forward pass for the backward pass",
    "logits": "a value for every token of the vocabulary",
    "workspace": "temporary tensors, and unused memory held by the allocator",
    "libraries": "Python, torch and other libraries",
}
FULL = 0.9
"""Share of a device that may be taken: others use it too, and a prediction is not exact."""


@dataclass(frozen=True)
class Planned:
    """The training that takes most, on one device."""

    label: str
    device: str
    memory: Memory
    device_bytes: int
    changes: tuple[Change, ...]
    seconds: float
    """That the prediction took."""

    @property
    def fits(self) -> bool:
        """Whether it stays below the share of the device that may be taken."""
        return self.memory.total <= FULL * self.device_bytes

    def document(self) -> dict[str, Any]:
        """For scripts; sizes in bytes."""
        changes = [{"overrides": c.overrides, "cost": c.cost, "total": c.memory.total} for c in self.changes]
        parts = vars(self.memory) | {"total": self.memory.total}
        options = {"training": self.label, "device": self.device, "device_bytes": self.device_bytes, "fits": self.fits}
        return options | {"parts": parts, "changes": changes}


def plan_memory(trainings: Sequence[Training], device: str) -> Planned:
    """Predict each kind of training once, and look for changes if the largest does not fit."""
    started = time.perf_counter()
    trials: dict[str, tuple[str, TrainingInputs]] = {}
    for training in trainings:
        trial = TrainingInputs(*(training.arguments[name] for name in TrainingInputs._fields))
        options = trial.params.model_dump(include={"optimizer", "step_in_backward", "batch_size", "micro_batch_tokens"})
        trials.setdefault(f"{options} {trial.train.fingerprint} {trial.model}", (training.label, trial))
    found = [(label, trial, predict(trial, device)) for label, trial in trials.values()]
    label, trial, memory = max(found, key=lambda one: one[2].total)
    seconds = time.perf_counter() - started
    there = memory_bytes(device)
    changes = () if memory.total <= FULL * there else tuple(memory_options(trial, device, int(FULL * there)))
    return Planned(label, device, memory, there, changes, seconds)


def print_memory(out: Console, planned: Planned) -> None:
    """A line for each part; then whether it fits, and what would make it fit."""
    each = " of each" if planned.device != "cpu" else ""
    unit, word, form = (GIB, "GiB", ",.1f") if planned.memory.total > 10 * GIB else (2**20, "MiB", ",.0f")
    table = Table("memory", word, "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, count in vars(planned.memory).items():
        meant = "the CUDA context (assumed)" if name == "libraries" and each else MEANT[name]
        table.add_row(name, f"{count / unit:{form}}", f"[dim]{meant}[/]")
    table.add_row(
        "in all", f"[bold]{planned.memory.total / unit:{form}}[/]", f"[dim]predicted in {planned.seconds:.0f} s[/]"
    )
    out.print()
    out.print(table)
    there = f"{size(planned.device_bytes)} of {'a ' + planned.device if each else 'this machine'}"
    style, word = ("green", "fits into") if planned.fits else ("red", f"does not fit into {FULL:.0%} of")
    out.print(f"[{style}]{word.capitalize()}[/] the {there}.", highlight=False)
    if planned.fits:
        return
    if not planned.changes:
        out.print("No change of these settings makes it fit: use a smaller model or a larger device.")
        return
    out.print("Changes that would make it fit, the cheapest first:", highlight=False)
    ways = Table("override", "then", "costs", box=None, pad_edge=False)
    for change in planned.changes:
        ways.add_row(" ".join(change.overrides), size(change.memory.total), f"[dim]{change.cost}[/]")
    out.print(ways)
