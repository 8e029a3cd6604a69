"""Every optimizer and every way to save memory on the demo's rows and model: docs/OPTIMIZERS.md has what this prints.

    OMP_NUM_THREADS=2 python -m benchmarks.optimizers [--rows 6000]

Each trains one epoch, from the same base and in the same order of rows, and is scored on validation. State is what the
optimizer keeps per parameter, as its checkpoint has it; peak is that of the process, so one process trains each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.train import TrainParams
from apf_tasks.tracking import run_logger
from apf_tasks.training.state import prepare_training
from apf_tasks.training.train import train_model
from benchmarks.cases import Case
from benchmarks.job import Job, prepare

WHOLE: dict[str, Any] = {"max_grad_norm": None, "micro_batch_tokens": 10**6}
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adamw": ({}, {}),
    "adafactor": ({"optimizer": {"name": "adafactor"}}, {}),
    "sgd, rate × 200": ({"optimizer": {"name": "sgd"}, "learning_rate": 2e-2}, {}),
    "sgd without momentum, rate × 2,000": ({"optimizer": {"name": "sgd", "momentum": 0}, "learning_rate": 2e-1}, {}),
    "adamw, a step in one pass, not clipped": (WHOLE, {}),
    "the same, step_in_backward": (WHOLE | {"step_in_backward": True}, {}),
    "the same, activations: selective": (WHOLE | {"step_in_backward": True}, {"activations": "selective"}),
    "the same, activations: recompute": (WHOLE | {"step_in_backward": True}, {"activations": "recompute"}),
}
RATE = 1e-4


def one(folder: Path, name: str) -> dict[str, float]:
    """Train by one row of the table."""
    job = Job.read(folder)
    train, runtime = ROWS[name]
    common = {"learning_rate": RATE, "epochs": 1, "batch_size": 32, "evaluate_every_epochs": 1}
    params = TrainParams.model_validate(common | train)
    out = folder / "trained"
    out.mkdir()
    where = job.params.runtime.model_copy(update=runtime)
    with run_logger.within(run_logger.Pipeline("optimizers")):
        trial = job.trial._replace(params=params, runtime=where)
        found = train_model(out, trial)
    return {
        "state": _state_bytes(folder / "again", trial) / found.parameters,
        "peak": found.peak_memory_gib,
        "speed": found.tokens_per_second,
        "score": found.scores[found.metric],
    }


def _state_bytes(out: Path, trial: TrainingInputs) -> int:
    """What the optimizer keeps after a step."""
    again = prepare_training(out, trial)
    next(again.steps_to_come())
    return _bytes(again.optimizer.state_dict())


def _bytes(state: Any) -> int:
    """Of all tensors in a nested state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(_bytes(value) for value in inner)


def main() -> None:
    """Measure all, print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(Path(given.one[0]), given.one[1])))
        return
    progress = Console(stderr=True)
    print("| | state, bytes per parameter | peak memory, GiB | useful tokens/s | of adamw's | accuracy |")
    print("|---|---|---|---|---|---|")
    first = 0.0
    for name in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["APF_MLRUNS"] = str(Path(folder, "mlruns"))
            prepare(Case(Path("params/sentiment.yaml"), given.rows, 32), Path(folder), given.rows, "fp32")
            progress.print(name)
            command = [sys.executable, "-m", "benchmarks.optimizers", "--one", folder, name]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        first = first or found["speed"]
        shown = f"{found['state']:.2f} | {found['peak']:.2f} | {found['speed']:,.0f} | {found['speed'] / first:.2f}"
        print(f"| {name} | {shown} | {found['score']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
