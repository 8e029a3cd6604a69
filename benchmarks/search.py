"""Time to a selected model: this project's search against Trainer doing the same combinations one after another.

    python -m benchmarks.search [--rows 1200] [--precision fp32] [--threads CORES]

Sixteen combinations of learning rate, batch size and warm-up on the rows of the sentiment case, by the clock on the
wall, from the start of a process. Ours is one process with the whole flow that `apf run` starts: MLflow, a Prefect
server of its own, reading, splitting and tokenizing, up to the selection, by halving; with several threads, as many
trials at the same time, one thread each. Trainer's are sixteen processes one after another at its best, each with all
threads, on rows that are tokenized already: importing, loading the base, training, evaluating, saving. What of that is
not importing is printed beside. Adds to mlruns/bench.json.
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
from typing import Any

from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.run import Results, side, table, write

CASE = CASES["sentiment"]
SPACE: dict[str, list[Any]] = {
    "train.learning_rate": [2e-5, 5e-5, 1e-4, 2e-4],
    "train.batch_size": [16, 32],
    "train.warmup_fraction": [0.0, 0.1],
}
EPOCHS = 3
AFTER_SELECTION = ("evaluate", "register")
out = Console()


def ours(rows: int, precision: str, threads: int) -> dict[str, float]:
    """Seconds after the selection, the chosen model's validation score, and the share of all steps; in this process."""
    from apf_tasks.artifacts import Selection
    from apf_tasks.stage import journal
    from flows.fine_tune import fine_tune

    with journal() as done:
        fine_tune(
            str(CASE.params),
            {
                "search.space": SPACE,
                "search.halving": {"eta": 3, "min_steps": 8},
                "search.parallel": threads,
                "train.epochs": EPOCHS,
                "data.max_rows": rows,
                "runtime.precision": precision,
                "runtime.device": "cpu",
            },
        )
    after = sum(v.seconds for v in done.visits if v.stage in AFTER_SELECTION)
    selection = next(v.handle for v in done.visits if isinstance(v.handle, Selection))
    steps = sum(trial["step"] for trial in done.trials)
    full = sum(trial["steps"] for trial in done.trials)
    return {"after": after, "score": selection.candidates[0].score, "cost": steps / full}


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


def own_process(rows: int, precision: str, threads: int, folder: Path) -> dict[str, float]:
    """`ours` over an empty store, in a process of its own."""
    environment = os.environ | {"APF_MLRUNS": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.search", "--rows", str(rows), "--ours"]
    command += ["--precision", precision, "--threads", str(threads)]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - started
    found: dict[str, float] = json.loads(done.stdout.decode().strip().rpartition("\n")[2])
    return found | {"seconds": seconds - found["after"]}


def main() -> None:
    """Measure both, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="rows of all splits together")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that either side has")
    parser.add_argument("--ours", action="store_true", help="this project's side alone, as one JSON line")
    given = parser.parse_args()
    if given.ours:
        print(json.dumps(ours(given.rows, given.precision, given.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        mine = own_process(given.rows, given.precision, given.threads, Path(folder))
    theirs = trainer(given.rows, given.precision, given.threads)
    units = {"seconds": "s to a selected model", "score": "best validation accuracy"}
    results: Results = {
        "16 combinations against Trainer at its best": {
            name: {"ours": mine[name], "other": theirs[name], "ratio": mine[name] / theirs[name], "unit": unit}
            for name, unit in units.items()
        }
    }
    write(results)
    out.print(table(results, f"{given.precision}, {given.threads} thread(s)"))
    out.print(f"Ours trained {mine['cost']:.2f} of the optimizer steps of all combinations.")


if __name__ == "__main__":
    main()
