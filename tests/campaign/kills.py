"""A search killed at random moments, again and again, then run to its end: is it the search that nobody disturbed?

A round is a new store in which the command is killed several times in a row. It went well when the weights, the choice,
the scores and all points in MLflow are those of the undisturbed run, and nothing of it lives on half a minute after a
kill. In half of the kills the whole process group gets the signal, in the others the main process alone.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

from tests.campaign.common import SMOKE, Cases, Figure, Workbench, differences, last_line, send

SEARCH = "search={space: {train.learning_rate: [2e-3, 1e-3, 5e-4, 2e-4]}, halving: {min_steps: 12, eta: 2}}"
COMMAND = (SMOKE, SEARCH, "train.epochs=24", "runtime.checkpoint_minutes=0.01")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ROUNDS, QUICK_ROUNDS, KILLS = 6, 1, 5
QUICK_KILLS = 3


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of rounds that came to the same."""
    dice, cases = random.Random(seed), Cases("rounds of kills ended as the undisturbed run")
    expected, kills = bench.folder / "undisturbed", QUICK_KILLS if quick else KILLS
    longest = training_seconds(bench, expected) / (kills + 1)  # so that some of it is left for the last kill
    for number in range(QUICK_ROUNDS if quick else ROUNDS):
        mlruns, told = bench.folder / f"round-{number}", []
        problems: list[str] = []
        for _ in range(kills):
            said, left = one_kill(bench, mlruns, dice.uniform(0, longest), dice)
            told.append(said)
            problems += [f"after {said}: {line}" for line in left]
        problems += finished(bench, expected, mlruns)
        cases.add(f"round {number}", problems, ", ".join(told))
    return cases.figure


def training_seconds(bench: Workbench, mlruns: Path) -> float:
    """How long the command takes there from its first training on. Raises RuntimeError when it fails."""
    log = bench.folder / f"{mlruns.name}.log"
    process = bench.start(mlruns, "run", *COMMAND, log=log)
    wait_for_training(process, log, 0)
    began = time.monotonic()
    if process.wait():
        raise RuntimeError(f"the undisturbed run fails: {log.read_text()[-2000:]}")
    return time.monotonic() - began


def one_kill(bench: Workbench, mlruns: Path, after: float, dice: random.Random) -> tuple[str, list[str]]:
    """So many seconds after the first training has begun. What was done, and what lives on."""
    log = bench.folder / f"{mlruns.name}.log"
    seen = log.stat().st_size if log.exists() else 0
    process = bench.start(mlruns, "run", *COMMAND, log=log)
    wait_for_training(process, log, seen)
    number, target = dice.choice(SIGNALS), dice.choice(("group", "main"))
    try:
        process.wait(after)
        return "had ended", []
    except subprocess.TimeoutExpired:
        send(process, number, target)
    try:
        process.wait(120)
    except subprocess.TimeoutExpired:
        send(process, signal.SIGKILL, "group")
        process.wait()
        return f"{number.name} to {target}", ["it had not ended after 120 s", *bench.orphans()]
    return f"{number.name} to {target} after {after:.0f} s", bench.orphans()


def wait_for_training(process: subprocess.Popen[bytes], log: Path, seen: int) -> None:
    """Until what the command says after byte `seen` speaks of a training, or it ends."""
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if b"train_" in log.read_bytes()[seen:]:
            return
        time.sleep(0.05)


def finished(bench: Workbench, expected: Path, mlruns: Path) -> list[str]:
    """What is wrong once the command has run to its end."""
    ended = bench.run(mlruns, "run", *COMMAND)
    if ended.returncode:
        return [f"the last run fails: {last_line(ended)}"]
    bench.run(mlruns, "reconcile")  # what a run that computes nothing has still to tell MLflow
    left = [path.name for path in (*mlruns.glob("outbox/*"), *mlruns.glob(".workers-*"))]
    return [*differences(expected, mlruns), *([f"left in the store: {left}"] if left else []), *bench.orphans(15)]
