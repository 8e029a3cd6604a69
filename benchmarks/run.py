"""`make bench`: this project's training and evaluation against Hugging Face's Trainer, in alternating processes.

    python -m benchmarks.run [--case NAME] [--rows N] [--repeats 3] [--precision fp32] [--threads 1] [--against SIDE]

Same base, rows, epochs, batch size, learning rate and seed; each training in a process of its own. Prints medians and
ratios, and writes mlruns/bench.json: {case: {measure: {"ours", "other", "ratio", "unit"}}}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from apf_tasks.cache import store
from apf_tasks.params.file import load_params
from benchmarks.cases import CASES

UNITS = {
    "tokens_per_second": "useful tokens/s in training",
    "evaluated_per_second": "rows/s in evaluation",
    "whole_seconds": "s from base to evaluated model",
    "peak_memory_mib": "MiB at the peak",
    "validation_loss": "validation loss per target",
    "mfu": "share of the machine's matrix products reached",
}
OTHERS = {
    "textbook": "the textbook's loop",
    "defaults": "Trainer, the scripts' defaults",
    "best": "Trainer at its best",
    "tuned": "Trainer tuned by hand",
}
Measures = dict[str, float]
Results = dict[str, dict[str, dict[str, float | str]]]
out = Console()


def side(name: str, folder: Path, threads: int, *options: str) -> str:
    """Run one side in a fresh process. Returns the last line it prints; raises SystemExit when it fails."""
    environment = os.environ | {
        "APF_MLRUNS": str(folder / "mlruns"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sides", name, str(folder), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return done.stdout.strip().rpartition("\n")[2]


def measure(
    case: str, others: Sequence[str], rows: int, repeats: int, precision: str, threads: int
) -> dict[str, Measures]:
    """Side -> medians of its measures over alternating repeats."""
    found: dict[str, list[Measures]] = {name: [] for name in ("ours", *others)}
    with tempfile.TemporaryDirectory() as folder:
        side("prepare", Path(folder), threads, case, str(rows), precision, "{}")
        for repeat in range(repeats):
            for name, measures in found.items():
                measures.append(json.loads(side(name, Path(folder), threads)))
                shown = ", ".join(f"{key} {value:,.4g}" for key, value in measures[-1].items())
                out.print(f"{case} [{repeat + 1}/{repeats}] {name}: {shown}", highlight=False)
        most = json.loads(side("ceiling", Path(folder), threads))
    for measures in found.values():
        for one in measures:
            one["mfu"] = one["tokens_per_second"] * most["flops_per_token"] / most["ceiling"]
    return {name: {key: statistics.median(m[key] for m in runs) for key in runs[0]} for name, runs in found.items()}


def compare(case: str, medians: dict[str, Measures]) -> Results:
    """This project beside both ways to use Trainer, with the ratio of medians."""
    metric = load_params(CASES[case].params).metric
    units = {**UNITS, metric: f"validation {metric}"}
    results: Results = {}
    for other in medians:
        if other == "ours":
            continue
        rows = results[f"{case} against {OTHERS[other]}"] = {}
        for key, unit in units.items():
            rows[key] = row(medians["ours"][key], medians[other][key], unit)
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="one of the cases; may be given several times")
    parser.add_argument("--against", choices=OTHERS, action="append", help="one of the other sides; all without it")
    parser.add_argument("--rows", type=int, help="rows of all splits together, instead of the case's own number")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    given = parser.parse_args()
    results: Results = {}
    for case in given.case or CASES:
        rows = given.rows or CASES[case].rows
        others = given.against or list(OTHERS)
        results |= compare(case, measure(case, others, rows, given.repeats, given.precision, given.threads))
        write(results)  # after each case: what is measured stays when a later one fails
    out.print(table(results, f"medians of {given.repeats}, {given.precision}, {given.threads} thread(s)"))


def row(mine: float, other: float, unit: str) -> dict[str, float | str]:
    """One measure beside another."""
    return {"ours": mine, "other": other, "ratio": mine / other if other else float("nan"), "unit": unit}


def write(results: Results) -> None:
    """Into mlruns/bench.json, beside what is there of other cases."""
    store.root().mkdir(parents=True, exist_ok=True)
    path = store.root() / "bench.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | results, indent=1))


def table(results: Results, how: str) -> Table:
    """What was measured, for people."""
    table = Table("case", "measure", "ours", "other", "ratio", title=f"{how}, {platform.machine()}")
    for case, measures in results.items():
        for found in measures.values():
            table.add_row(case, str(found["unit"]), *(f"{found[column]:,.4g}" for column in ("ours", "other", "ratio")))
        table.add_section()
    return table


if __name__ == "__main__":
    main()
