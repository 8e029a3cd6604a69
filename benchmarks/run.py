"""`make bench`: this project's train stage against Hugging Face's Trainer, in alternating processes.

    python -m benchmarks.run [--rows 2500] [--repeats 3]

Same base, rows, epochs, batch size, learning rate and seed; fp32; each training in a process of its own. Prints medians
and ratios, and writes mlruns/bench.json: {case: {measure: {"ours", "other", "ratio", "unit"}}}.
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
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from apf_tasks import store
from apf_tasks.ingestion import ingest
from apf_tasks.model_sources import model_folder
from apf_tasks.params_file import load_params
from apf_tasks.splitting import split_rows
from apf_tasks.tokenization import tokenize

UNITS = {"tokens_per_second": "useful tokens/s", "peak_memory_mib": "MiB", "accuracy": "validation accuracy"}
OTHERS = {"trainer": "Trainer, group_by_length", "trainer_default": "Trainer, its defaults"}
out = Console()


def prepare(folder: Path, rows: int) -> None:
    """The job of both sides: tokenized splits of the demo data and what to train with."""
    params = load_params("params/sentiment.yaml", [f"data.max_rows={rows}"])
    paths = {name: folder / name for name in ("raw", "split", "train", "validation")}
    for path in paths.values():
        path.mkdir()
    split = split_rows(paths["split"], ingest(paths["raw"], params.data, params.family), params.split, params.family)
    job: dict[str, Any] = {
        "base": str(model_folder(params.model)),
        "max_tokens": params.model.max_tokens,
        "params": {"epochs": 1, "batch_size": 32, "learning_rate": 1e-4, "seed": 0},
    }
    for name in ("train", "validation"):
        handle = tokenize(paths[name], split, name, params.model, params.family)  # type: ignore[arg-type]
        job[name] = handle.model_dump(mode="json")
    (folder / "job.json").write_text(json.dumps(job))


def measure(side: str, folder: Path) -> dict[str, float]:
    """One training in a fresh process."""
    environment = os.environ | {"APF_MLRUNS": str(folder / "mlruns"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.sides", side, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    measures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measures


def compare(repeats: int, folder: Path) -> dict[str, dict[str, dict[str, float | str]]]:
    """Alternate the sides `repeats` times; medians, and the ratio of medians."""
    sides: dict[str, list[dict[str, float]]] = {side: [] for side in ("ours", *OTHERS)}
    for repeat in range(repeats):
        for side, found in sides.items():
            found.append(measure(side, folder))
            shown = ", ".join(f"{found[-1][m]:,.4g} {unit}" for m, unit in UNITS.items())
            out.print(f"[{repeat + 1}/{repeats}] {side}: {shown}", highlight=False)
    results: dict[str, dict[str, dict[str, float | str]]] = {}
    for other, title in OTHERS.items():
        case = results[f"encoder training against {title}"] = {}
        for name, unit in UNITS.items():
            mine, theirs = (statistics.median(m[name] for m in sides[s]) for s in ("ours", other))
            case[name] = {"ours": mine, "other": theirs, "ratio": mine / theirs, "unit": unit}
    return results


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), arguments.rows)
        results = compare(arguments.repeats, Path(folder))
    store.root().mkdir(parents=True, exist_ok=True)
    (store.root() / "bench.json").write_text(json.dumps(results, indent=1))
    table = Table(
        "case", "measure", "ours", "other", "ratio", title=f"medians of {arguments.repeats}, {platform.machine()}"
    )
    for case, measures in results.items():
        for name, row in measures.items():
            numbers = [f"{row[column]:,.4g}" for column in ("ours", "other", "ratio")]
            table.add_row(case, f"{name} ({row['unit']})", *numbers)
    out.print(table)


if __name__ == "__main__":
    main()
