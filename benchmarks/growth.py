"""How cost grows: ten times the rows, four times the length, ten times the trials, two ranks instead of one.

    OMP_NUM_THREADS=1 python -m benchmarks.growth [--repeats 3]

Each training is a process of its own. Beside each measure stands what it would be if cost grew in proportion.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.overheads import TINY, apf_run
from benchmarks.run import Measures, Results, row, side, table, write

ROWS, LENGTH, RATES = 300, 64, 2
out = Console()


def trained(case: str, rows: int, threads: int, repeats: int, changes: Mapping[str, Any]) -> Measures:
    """Medians of the measures of our side."""
    with tempfile.TemporaryDirectory() as name:
        side("prepare", Path(name), threads, case, str(rows), "fp32", json.dumps(dict(changes)))
        runs = [json.loads(side("ours", Path(name), threads)) for _ in range(repeats)]
    found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    out.print(f"{case}, {rows} rows, {dict(changes)}: {found}", highlight=False)
    return found


def rows_times_ten(threads: int, repeats: int) -> Results:
    """Time per row should stay, and memory should not grow with the rows."""
    few, many = (trained("sentiment", rows, threads, repeats, {}) for rows in (ROWS, 10 * ROWS))
    speed = row(many["tokens_per_second"], few["tokens_per_second"], "useful tokens/s in training")
    memory = row(many["peak_memory_mib"], few["peak_memory_mib"], "MiB at the peak")
    return {f"{10 * ROWS} rows beside {ROWS}": {"speed": speed, "memory": memory}}


def length_times_four(threads: int, repeats: int) -> Results:
    """Tokens/s of longer sequences: attention grows with the square, all else does not."""
    texts = [{"model.max_tokens": length} for length in (LENGTH, 4 * LENGTH)]
    short, long = (trained("masked_lm", 60, threads, repeats, changes) for changes in texts)
    speed = row(long["tokens_per_second"], short["tokens_per_second"], "useful tokens/s in training")
    memory = row(long["peak_memory_mib"], short["peak_memory_mib"], "MiB at the peak")
    return {f"sequences of {4 * LENGTH} tokens beside {LENGTH}": {"speed": speed, "memory": memory}}


def ranks_times_two(repeats: int) -> Results:
    """Two ranks of one thread beside one."""
    one, two = (trained("sentiment", 4 * ROWS, n, repeats, {"runtime.devices": n}) for n in (1, 2))
    speed = row(two["tokens_per_second"], one["tokens_per_second"], "useful tokens/s in training")
    return {"two ranks beside one, a thread each": {"speed": speed}}


def trials_times_ten() -> Results:
    """A search of a tiny model, whole job."""
    walls = []
    for count in (RATES, 10 * RATES):
        space = {"search.space": {"train.learning_rate": [1e-3 * (1 + i / 100) for i in range(count)]}}
        with tempfile.TemporaryDirectory() as name:
            walls.append(apf_run(TINY, Path(name), space)[0])
    few, many = walls
    return {
        f"{10 * RATES} trials beside {RATES}": {"time": row(many, few, "s from the command to the registered model")}
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    results = rows_times_ten(threads, given.repeats) | length_times_four(threads, given.repeats)
    results |= ranks_times_two(given.repeats) | trials_times_ten()
    write(results)
    out.print(table(results, f"medians of {given.repeats}, {threads} thread(s)"))


if __name__ == "__main__":
    main()
