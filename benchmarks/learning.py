"""What is learned per epoch: this project and Hugging Face's Trainer, with the same hyperparameters, rows and epochs.

    python -m benchmarks.learning [--case NAME] [--seeds 10] [--against defaults|best] [--threads 1]

Both train on the same rows once for each seed, of the order, the dropout, the head and the weights from scratch. Prints
the means over the seeds, and the mean of the paired difference, ours - Trainer, with its 95 % interval (Student's t).
Score and loss are of the validation rows, at least 500, and computed by the same code from both models. What is done
stands in mlruns/learning.json and is not done again: an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_rel

from apf_tasks.cache import store
from apf_tasks.params.file import load_params
from benchmarks.cases import CASES
from benchmarks.run import OTHERS, side

ROWS = {"sentiment": 2000, "ner": 2000, "causal_lm-instructions": 2000}
"""Rows of all splits together; a quarter of them is held out."""
Measures = dict[str, float]
out = Console()


def one(case: str, seed: int, name: str, rows: int, threads: int) -> Measures:
    """One training of one side."""
    with tempfile.TemporaryDirectory() as folder:
        changes = json.dumps({"train.seed": seed, "model.seed": seed})
        side("prepare", Path(folder), threads, case, str(rows), "fp32", changes)
        measures: Measures = json.loads(side(name, Path(folder), threads))
    return measures


def table(case: str, ours: Sequence[Measures], theirs: Sequence[Measures], other: str) -> Table:
    """The paired comparison over the seeds that both sides have."""
    metric = load_params(CASES[case].params).metric
    shown = Table("validation", "ours", "other", "ours - other", "95 % interval", title=f"{case}, {len(ours)} seeds")
    shown.caption = f"other: {OTHERS[other]}"
    for name in (metric, "validation_loss"):
        mine, its = (np.array([measures[name] for measures in side]) for side in (ours, theirs))
        interval = ttest_rel(mine, its).confidence_interval()
        low, high = (f"{bound:+.4f}" for bound in interval)
        shown.add_row(name, f"{mine.mean():.4f}", f"{its.mean():.4f}", f"{(mine - its).mean():+.4f}", f"{low} … {high}")
    return shown


def main() -> None:
    """Train what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=ROWS, action="append", help="one of the cases; may be given several times")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--against", choices=("defaults", "best"), default="defaults")
    parser.add_argument("--rows", type=int, help="rows of all splits together, instead of the case's own number")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    given = parser.parse_args()
    path = store.root() / "learning.json"
    done: dict[str, Measures] = json.loads(path.read_text()) if path.is_file() else {}
    for case in given.case or ROWS:
        rows = given.rows or ROWS[case]
        sides: dict[str, list[Measures]] = {"ours": [], given.against: []}
        for seed in range(given.seeds):
            for name, found in sides.items():
                key = f"{case}, {rows} rows, seed {seed}, {name}"
                if key not in done:
                    started = time.perf_counter()
                    done[key] = one(case, seed, name, rows, given.threads)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(done, indent=1))
                    loss = done[key]["validation_loss"]
                    out.print(f"{key}: loss {loss:.4f}, {time.perf_counter() - started:.0f} s", highlight=False)
                found.append(done[key])
        out.print(table(case, *sides.values(), given.against))


if __name__ == "__main__":
    main()
