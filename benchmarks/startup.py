"""How long `apf run` takes to its first optimizer step with nothing stored, and to say an outcome that is stored.

    python -m benchmarks.startup [--runs 3]

In an empty folder each time, without a server. The first run fills the caches of bytecode and of the user, and is not
counted. The seconds of processor time to the first step depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

PARAMS = Path(__file__).parents[1] / "params" / "smoke" / "sentiment.yaml"
APF = Path(sys.executable).with_name("apf")


def main() -> None:
    """Measure, and print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        first_step(Path(folder, "warm"))
    steps, cores, reused = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            seconds, used = first_step(Path(folder, "mlruns"))
            steps.append(seconds)
            cores.append(used)
            reused.append(seconds_of_a_reused_run(Path(folder, "mlruns")))
    print(f"load of the last minute before the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"first optimizer step: {median(steps):.1f} s (median of {runs}; {min(steps):.1f} to {max(steps):.1f})")
    command, children = (median(used) for used in zip(*cores, strict=True))
    print(f"processor time by then: {command:.1f} s of the command, {children:.1f} s of what it started")
    print(f"a run that is reused: {median(reused):.2f} s (median of {runs}; {min(reused):.2f} to {max(reused):.2f})")


def first_step(mlruns: Path) -> tuple[float, tuple[float, float]]:
    """Seconds from the command to the first optimizer step of the first trial, and processor time by then.

    The points of a step are in the outbox as soon as it is made. The run goes on to its end.
    """
    started = time.perf_counter()
    with started_run(mlruns) as process:
        while not any("train/loss" in file.read_text() for file in (mlruns / "outbox").glob("*.jsonl")):
            if process.poll() is not None:
                raise SystemExit("the run ended before its first step")
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        used = processor_time(process.pid)
        if process.wait():
            raise SystemExit("the run failed")
    return seconds, used


def processor_time(pid: int) -> tuple[float, float]:
    """Seconds of a process, and of the processes that it started and that live."""
    process = psutil.Process(pid)
    own, *others = (sum(found.cpu_times()[:2]) for found in [process, *process.children(recursive=True)])
    return own, sum(others)


def seconds_of_a_reused_run(mlruns: Path) -> float:
    """Seconds of the whole command."""
    started = time.perf_counter()
    with started_run(mlruns) as process:
        if process.wait():
            raise SystemExit("the run failed")
    return time.perf_counter() - started


def started_run(mlruns: Path) -> subprocess.Popen[bytes]:
    """`apf run` of the smoke experiment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [str(APF), "run", str(PARAMS)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, env=environment | {"APF_MLRUNS": str(mlruns)}, cwd=PARAMS.parents[2], stdout=quiet, stderr=quiet
    )


if __name__ == "__main__":
    main()
