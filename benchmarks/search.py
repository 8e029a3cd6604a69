"""Time to a selected model: this project's search against Trainer doing the same combinations one after another.

    python -m benchmarks.search [--rows 1200] [--precision fp32] [--threads CORES] [--seeds N]

Sixteen combinations of learning rate, batch size and warm-up on the rows of the sentiment case, by the clock on the
wall, from the start of a process. Ours is one process with the whole flow that `apf run` starts: MLflow, a Prefect
server of its own, reading, splitting and tokenizing, up to the selection, by halving; with several threads, as many
trials at the same time, one thread each. Trainer's are sixteen processes one after another at its best, each with all
threads, on rows that are tokenized already: importing, loading the base, training, evaluating, saving. What of that is
not importing is printed beside. Both validate once, at the end of a training; ours at its rungs too.

With `--seeds` no time is measured, but what halving loses: for each seed, of the split and of the training, the trial
it chooses beside the best of all sixteen trained to the end. Adds to mlruns/bench.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.run import Results, row, side, table, write

if TYPE_CHECKING:
    from apf_tasks.artifacts import Selection
    from apf_tasks.stage import Journal

CASE = CASES["sentiment"]
SPACE: dict[str, list[Any]] = {
    "train.learning_rate": [2e-5, 5e-5, 1e-4, 2e-4],
    "train.batch_size": [16, 32],
    "train.warmup_fraction": [0.0, 0.1],
}
EPOCHS = 3
HALVING = {"eta": 4, "min_steps": 7}
"""16 trials to a sixteenth of their steps, 4 to a quarter, 1 to the end."""
AFTER_SELECTION = ("evaluate", "register")
out = Console()


def ours(rows: int, precision: str, threads: int, changes: dict[str, Any]) -> Journal:
    """The job in this process, as its journal tells it."""
    from apf_tasks.stage import journal
    from flows.fine_tune import fine_tune

    overrides: dict[str, Any] = {
        "search.space": SPACE,
        "search.halving": HALVING,
        "search.parallel": threads,
        "train.epochs": EPOCHS,
        "train.evaluate_every_epochs": EPOCHS,
        "data.max_rows": rows,
        "runtime.precision": precision,
        "runtime.device": "cpu",
    }
    with journal() as done:
        fine_tune(str(CASE.params), overrides | changes)
    return done


def selection_of(done: Journal) -> Selection:
    """What was chosen."""
    from apf_tasks.artifacts import Selection

    return next(visit.handle for visit in done.visits if isinstance(visit.handle, Selection))


def timed(rows: int, precision: str, threads: int) -> dict[str, float]:
    """Seconds after the selection, the chosen model's validation score, the share of all steps, and where time went."""
    done = ours(rows, precision, threads, {})
    steps = sum(trial["step"] for trial in done.trials)
    return {
        "after": sum(v.seconds for v in done.visits if v.stage in AFTER_SELECTION),
        "score": selection_of(done).candidates[0].score,
        "cost": steps / sum(trial["steps"] for trial in done.trials),
        "steps_seconds": sum(trial["seconds"] for trial in done.trials),
        "trial_seconds": sum(v.seconds for v in done.visits if v.stage in ("train_rung", "train_model")),
    }


def choice(rows: int, precision: str, threads: int, seed: int) -> Results:
    """The validation score of the trial that halving chooses, beside the best of all that are trained to the end."""
    from apf_tasks.artifacts import TrainedModel
    from apf_tasks.families import get_family
    from apf_tasks.metrics.bootstrap import resampled_scores
    from apf_tasks.params_file import load_params
    from apf_tasks.selection import validation_statistics

    changes = {"train.seed": seed, "split.seed": seed}
    chosen = selection_of(ours(rows, precision, threads, changes)).candidates[0]
    whole = ours(rows, precision, threads, changes | {"search.halving": None})
    best = selection_of(whole)
    scores = sorted(v.handle.scores[best.metric] for v in whole.visits if isinstance(v.handle, TrainedModel))
    family = get_family(load_params(CASE.params).family)
    counts = validation_statistics(best.chosen, family)
    error = float(np.std(resampled_scores(counts, family.scores, 1000, 0)[best.metric]))
    top = best.candidates[0]
    print(f"seed {seed}: {chosen.trial} by halving, {top.trial} of the whole grid, whose scores are")
    print(f"  {', '.join(f'{score:.3f}' for score in scores)}")
    lost = top.score - chosen.score
    return {
        f"halving against the whole grid, seed {seed}": {
            "score": row(chosen.score, top.score, f"validation {best.metric} of the chosen trial"),
            "lost": row(lost, error, "of that score lost by halving (ours), its standard error (other)"),
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


def own_process(folder: Path, *more: str, precision: str, rows: int, threads: int) -> Any:
    """This project's side over a store in `folder`, in a process of its own: what it prints as its last line."""
    environment = os.environ | {"APF_MLRUNS": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.search", "--ours", *more]
    command += ["--rows", str(rows), "--precision", precision, "--threads", str(threads)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    said, _, last = done.stdout.strip().rpartition("\n")
    print(said)
    return json.loads(last)


def against_trainer(precision: str, rows: int, threads: int) -> Results:
    """Both sides, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        mine = own_process(Path(folder), precision=precision, rows=rows, threads=threads)
        mine["seconds"] = time.perf_counter() - started - mine["after"]
    trained, within = (mine[name] / threads for name in ("steps_seconds", "trial_seconds"))
    out.print(
        f"Ours: {mine['seconds']:.1f} s, of which trials {within:.1f}, of which optimizer steps {trained:.1f}; "
        f"{mine['cost']:.3f} of the steps of all combinations"
    )
    theirs = trainer(rows, precision, threads)
    units = {"seconds": "s to a selected model", "score": "best validation accuracy"}
    return {
        "16 combinations against Trainer at its best": {
            name: row(mine[name], theirs[name], unit) for name, unit in units.items()
        }
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="rows of all splits together")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that either side has")
    parser.add_argument("--seeds", type=int, help="what halving loses, over so many seeds, instead of the time")
    parser.add_argument("--ours", action="store_true", help="this project's side alone, as one JSON line")
    given = parser.parse_args()
    how = {"precision": given.precision, "rows": given.rows, "threads": given.threads}
    if given.ours:
        found = choice(seed=given.seeds, **how) if given.seeds is not None else timed(**how)
        print(json.dumps(found))
        return
    if given.seeds is None:
        results = against_trainer(**how)
    else:
        results = {}
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as folder:
                results |= own_process(Path(folder), "--seeds", str(seed), **how)
                write(results)
    write(results)
    out.print(table(results, f"{given.precision}, {given.threads} thread(s)"))


if __name__ == "__main__":
    main()
