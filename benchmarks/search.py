"""Time to a selected model: this project's search against Trainer doing the same combinations one after another.

    python -m benchmarks.search [--rows 1200] [--precision fp32] [--threads CORES] [--seeds N]

Sixteen combinations of learning rate, batch size and warm-up on the rows of the sentiment case, by the clock on the
wall. Ours is `apf run` with nothing stored, up to the selection: MLflow, a Prefect server of its own, reading,
splitting, tokenizing, and trials by halving; with several threads, as many trials at the same time, one thread each.
Trainer's are sixteen processes one after another at its best, each with all threads, on rows that are tokenized
already: importing, loading the base, training, evaluating, saving. What of that is not importing is printed beside.
Both validate once, at the end of a training; ours at its rungs too.

With `--seeds` no time is measured, but what halving loses: for each seed, of the split and of the training, the trial
it chooses beside the best of all sixteen trained to the end. Adds to mlruns/bench.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.overheads import apf_run
from benchmarks.run import Results, row, side, table, write

CASE = CASES["sentiment"]
SPACE: dict[str, list[Any]] = {
    "train.learning_rate": [2e-5, 5e-5, 1e-4, 2e-4],
    "train.batch_size": [16, 32],
    "train.warmup_fraction": [0.0, 0.1],
}
EPOCHS = 3
HALVING = {"eta": 4, "min_steps": 4}
"""16 trials to a sixteenth of their steps, 4 to a quarter, 1 to the end."""
out = Console()


def ours(given: argparse.Namespace, folder: Path, changes: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
    """Seconds of `apf run` over the store in `folder`, and what it says."""
    overrides = {
        "search.space": SPACE,
        "search.halving": HALVING,
        "search.parallel": given.threads,
        "train.epochs": EPOCHS,
        "train.evaluate_every_epochs": EPOCHS,
        "data.max_rows": given.rows,
        "runtime.precision": given.precision,
        "runtime.device": "cpu",
    }
    seconds, _, said = apf_run(CASE.params, folder, overrides | dict(changes))
    return seconds, said


def choice(given: argparse.Namespace, seed: int) -> Results:
    """The validation score of the trial that halving chooses, beside the best of all that are trained to the end."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = {"train.seed": seed, "split.seed": seed}
        _, halved = ours(given, Path(folder), seeds)
        _, whole = ours(given, Path(folder), seeds | {"search.halving": None})
    chosen, best = (said["selection"]["candidates"][0] for said in (halved, whole))
    low, high = best["interval"]
    error, metric = (high - low) / 2 / 1.96, whole["selection"]["metric"]
    out.print(
        f"seed {seed}: {chosen['trial']} by halving, {best['trial']} of the whole grid, whose scores are", style=""
    )
    out.print("  " + ", ".join(f"{score:.3f}" for score in sorted(trial["score"] for trial in whole["search"])))
    return {
        f"halving beside the whole grid, seed {seed}": {
            "score": row(chosen["score"], best["score"], f"validation {metric} of the chosen trial"),
            "lost": row(best["score"] - chosen["score"], error, "of it lost by halving (ours), standard error (other)"),
        }
    }


def trainer(rows: int, precision: str, threads: int) -> dict[str, float]:
    """Seconds of all trainings, and the best validation score."""
    runs = []
    for values in itertools.product(*SPACE.values()):
        changes = dict(zip(SPACE, values, strict=True))
        changes |= {"train.epochs": EPOCHS, "train.evaluate_every_epochs": EPOCHS}
        with tempfile.TemporaryDirectory() as folder:
            side("prepare", Path(folder), threads, "sentiment", str(rows), precision, json.dumps(changes))
            started = time.perf_counter()
            run = json.loads(side("best", Path(folder), threads))
            runs.append(run | {"seconds": time.perf_counter() - started})
            out.print(f"Trainer {changes}: {runs[-1]['seconds']:.1f} s, {run['accuracy']:.4f}")
    within = sum(run["whole_seconds"] for run in runs)
    out.print(f"Trainer: {within:.1f} s of all from loading the base to the evaluated model, without importing")
    return {"seconds": sum(run["seconds"] for run in runs), "score": max(run["accuracy"] for run in runs)}


def against_trainer(given: argparse.Namespace) -> Results:
    """Both sides, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        wall, said = ours(given, Path(folder), {})
    seconds = wall - said["seconds"]["evaluate"] - said["seconds"]["register"]
    trials = (said["seconds"]["train_rung"] + said["seconds"]["train_model"]) / given.threads
    steps, done, full = (sum(trial[name] for trial in said["search"]) for name in ("seconds", "step", "steps"))
    out.print(
        f"Ours: {seconds:.1f} s, {trials:.1f} of them in trials, {steps / given.threads:.1f} of these in optimizer "
        f"steps; {done / full:.3f} of the steps of all combinations"
    )
    theirs = trainer(given.rows, given.precision, given.threads)
    score = said["selection"]["candidates"][0]["score"]
    return {
        "16 combinations against Trainer at its best": {
            "seconds": row(seconds, theirs["seconds"], "s to a selected model"),
            "score": row(score, theirs["score"], "best validation accuracy"),
        }
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="rows of all splits together")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that either side has")
    parser.add_argument("--seeds", type=int, help="what halving loses, over so many seeds, instead of the time")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    results: Results = {} if given.seeds else against_trainer(given)
    for seed in range(given.seeds or 0):
        results |= choice(given, seed)
        write(results)  # what is measured stays when a later one fails
    write(results)
    out.print(table(results, f"{given.precision}, {given.threads} thread(s)"))


if __name__ == "__main__":
    main()
