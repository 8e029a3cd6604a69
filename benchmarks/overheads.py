"""What is not training: the start, each trial, checkpoints, and the share of a whole job.

    OMP_NUM_THREADS=2 python -m benchmarks.overheads [--rows 1200] [--repeats 5]

Beside what a person would have otherwise: a script around Hugging Face's Trainer. For trials and the whole job the
other column is what would be left without any overhead: the seconds of the steps, or of the stages' own work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.job import Job
from benchmarks.run import Results, row, side, table, write

PARAMS = CASES["sentiment"].params
TINY = Path("params/smoke/sentiment.yaml")
TRIALS = 10
out = Console()


def apf_run(params: Path, folder: Path, overrides: Mapping[str, Any]) -> tuple[float, float, dict[str, Any]]:
    """`apf run` in a process of its own: seconds by the clock, when it began, what it says."""
    given = [f"{name}={json.dumps(value)}" for name, value in overrides.items()]
    environment = os.environ | {"APF_MLRUNS": str(folder), "HF_HUB_OFFLINE": "1"}
    began = time.time()
    command = [sys.executable, "-m", "flows.cli.main", "run", str(params), *given, "--json"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return time.time() - began, began, json.loads(said)


def first_point(folder: Path) -> float:
    """When the first step of any training ended, in seconds since 1970."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    points = [point for run in runs for point in client.get_metric_history(run.info.run_id, "train/loss")[:1]]
    return float(min(point.timestamp for point in points)) / 1000


def start(repeats: int) -> Results:
    """From nothing to the first optimizer step of a tiny model."""
    mine, theirs = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            _, began, _ = apf_run(TINY, Path(name), {})
            mine.append(first_point(Path(name)) - began)
            theirs.append(_trainer_start(Path(name)))
    found = row(statistics.median(mine), statistics.median(theirs), "s from the command to the first step")
    return {"cold start against a Trainer script": {"start": found}}


def _trainer_start(folder: Path) -> float:
    """A script that imports Trainer and takes one step of a model as small, on rows made on the spot."""
    script = """
import sys, time
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
class First(TrainerCallback):
    def on_step_end(self, *others, **more):
        print(time.time()); sys.stdout.flush()
sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=100)
rows = [{"input_ids": [1, 2, 3], "labels": 0}] * 8
settings = TrainingArguments(sys.argv[1], max_steps=1, report_to="none", disable_tqdm=True, use_cpu=True)
Trainer(BertForSequenceClassification(BertConfig(**sizes)), settings, train_dataset=rows, callbacks=[First()]).train()
"""
    began = time.time()
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder / "trainer")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(said.split()[0]) - began


def each_trial(repeats: int) -> Results:
    """Seconds of a trial that are not its training: ten more trials of a tiny model, less the time of their steps."""
    found = []
    for _ in range(repeats):
        rates = [1e-3 * (1 + i / 100) for i in range(TRIALS + 2)]
        walls, trained = {}, {}
        for count in (2, TRIALS + 2):
            with tempfile.TemporaryDirectory() as name:
                space = {"search.space": {"train.learning_rate": rates[:count]}, "search.halving": None}
                walls[count], _, _ = apf_run(TINY, Path(name), space)
                trained[count] = _trained_seconds(Path(name))
        found.append((walls[TRIALS + 2] - walls[2], trained[TRIALS + 2] - trained[2]))
    whole, steps = (statistics.median(values) / TRIALS for values in zip(*found, strict=True))
    return {"a trial of a tiny model": {"trial": row(whole, steps, "s whole (ours), s of its steps (other)")}}


def _trained_seconds(folder: Path) -> float:
    handles = (json.loads(path.read_text()) for path in (folder / "stages" / "train_model").glob("*/handle.json"))
    return sum(handle["train_seconds"] for handle in handles)


def checkpoint(folder: Path, repeats: int) -> Results:
    """How long training stands still for a checkpoint: weights, AdamW's moments, progress."""
    job = Job.read(folder)
    mine, written, beside, alone = _our_checkpoints(job, folder, repeats)
    theirs = _trainer_checkpoints(job, folder, repeats)
    return {
        "checkpoint against Trainer's": {
            "blocking": row(mine, theirs, "s for which training stands still"),
            "beside": row(beside, alone, "useful tokens/s of a step while one is written (ours), of others (other)"),
            "written": row(written, theirs, "s until it is on disk, a step included, flushed (Trainer's is not)"),
        }
    }


def checkpoints_of(case: str, threads: int, repeats: int) -> Results:
    """The same for a case of the benchmark."""
    with tempfile.TemporaryDirectory() as name:
        side("prepare", Path(name), threads, case, "800", "fp32", "{}")
        os.environ["APF_MLRUNS"] = str(Path(name) / "mlruns")
        try:
            return checkpoint(Path(name), repeats)
        finally:
            del os.environ["APF_MLRUNS"]


def _our_checkpoints(job: Job, folder: Path, repeats: int) -> tuple[float, ...]:
    from apf_tasks.training.state import prepare_training
    from apf_tasks.training.train import checkpoints

    training = prepare_training(folder / "ours", job.trial)
    steps = training.steps_to_come()
    blocked, written, beside, alone = [], [], [], []
    with checkpoints(training) as kept:
        for _ in range(repeats):
            step = next(steps)
            alone.append(step.tokens / step.seconds)
            before, began = kept.blocked_seconds, time.perf_counter()
            kept.save_async(training.progress)
            step = next(steps)  # waits for the copy before it changes the weights
            beside.append(step.tokens / step.seconds)
            blocked.append(kept.blocked_seconds - before)
            kept.wait()
            written.append(time.perf_counter() - began)
    steps.close()
    return tuple(statistics.median(values) for values in (blocked, written, beside, alone))


def _trainer_checkpoints(job: Job, folder: Path, repeats: int) -> float:
    from transformers import TrainerCallback

    from benchmarks.trainer_side import DEFAULT_BATCH, built, task_of

    class Saved(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.began = 0.0

        def on_step_end(self, arguments: Any, state: Any, control: Any, **more: Any) -> None:
            control.should_save, self.began = True, time.perf_counter()

        def on_save(self, *others: Any, **more: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    saved = Saved()
    task = replace(task_of(job), settings={"max_steps": repeats})
    hf, _ = built(job, task, str(folder / "trainer"), job.groups, DEFAULT_BATCH)
    hf.add_callback(saved)
    hf.train()
    return statistics.median(saved.seconds)


@contextmanager
def servers(folder: Path) -> Iterator[None]:
    """MLflow's and Prefect's UIs over a folder within the block, as `apf ui` starts them."""
    command = [sys.executable, "-m", "flows.cli.main", "ui"]
    environment = os.environ | {"APF_MLRUNS": str(folder)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not any("Ctrl-C" in line for line in process.stdout):
                raise SystemExit("apf ui did not start; run it alone to see why")
            yield
        finally:
            process.send_signal(signal.SIGINT)


def share(rows: int, epochs: float) -> Results:
    """A whole job by `apf run`, and the seconds of it in which a stage computed; without servers and beside them."""
    told = {"data.max_rows": rows, "train.epochs": epochs, "runtime.device": "cpu", "runtime.precision": "fp32"}
    unit = "s by the clock (ours), s within stages (other)"
    found = {}
    for where, around in (("no server up", nullcontext), ("servers up", servers)):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, around(Path(name)):
            wall, _, said = apf_run(PARAMS, Path(name), told)
        found[where] = row(wall, sum(said["seconds"].values()), f"{unit}, {where}")
    return {"a whole job, from the command to the registered model": found}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("checkpoint", "start", "trial", "share"), action="append")
    parser.add_argument("--rows", type=int, default=1200, help="of all splits of the whole job")
    parser.add_argument("--epochs", type=float, default=3, help="of the whole job")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    parts: dict[str, Callable[[], Results]] = {
        "checkpoint": lambda: checkpoints_of("sentiment", threads, given.repeats),
        "start": lambda: start(given.repeats),
        "trial": lambda: each_trial(1),
        "share": lambda: share(given.rows, given.epochs),
    }
    results: Results = {}
    for name in given.part or parts:
        results |= parts[name]()
        write(results)
    out.print(table(results, f"medians of {given.repeats}, {threads} thread(s)"))


if __name__ == "__main__":
    main()
