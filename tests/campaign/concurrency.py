"""Commands at the same time over one store, as real processes.

`first starts`: two clients of MLflow and two of Prefect over a store that is not there yet, then one more of each.
`same`: two equal runs; every stage is computed once. `different`: three experiments. `promote`: many promotions of two
versions at once; the log is whole and agrees with the registry. `retrain`: two retrainings. `rollback`: rollbacks and
promotions mixed.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.common import PATIENCE, SMOKE, Cases, Figure, Workbench, document, last_line, rows_of, statuses
from tests.support.paths import PROJECT

MLFLOW = "from apf_tasks.tracking import tracker; tracker.client()"
PREFECT = (
    "from flows.orchestration.settings import apply_defaults; apply_defaults()\n"
    "from prefect.client.orchestration import get_client\n"
    "with get_client(sync_client=True) as client: client.hello()"
)


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of races that went well."""
    cases = Cases("races over one store went well")
    for name, code in (("MLflow", MLFLOW), ("Prefect", PREFECT)):
        cases.add(f"first starts of {name}", [*first_starts(bench, name, code), *bench.orphans()])
    cases.add("same", [*same(bench), *bench.orphans()])
    store = two_versions(bench)
    cases.add("promote", [*promotions(bench, store, 6 if quick else 20), *bench.orphans()])
    cases.add("rollback", [*rollbacks(bench, store), *bench.orphans()])
    if not quick:
        cases.add("different", [*different(bench), *bench.orphans()])
        cases.add("retrain", [*retrainings(bench), *bench.orphans()])
    return cases.figure


def together(
    bench: Workbench, mlruns: Path, commands: Sequence[Sequence[str]]
) -> list[subprocess.CompletedProcess[str]]:
    """All at once; what became of each."""
    logs = [bench.folder / f"{mlruns.name}-{number}.log" for number in range(len(commands))]
    for log in logs:
        log.unlink(missing_ok=True)
    started = [bench.start(mlruns, *words, log=log) for words, log in zip(commands, logs, strict=True)]
    for process in started:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return [
        subprocess.CompletedProcess(list(words), process.returncode, log.read_text(errors="replace"), "")
        for words, process, log in zip(commands, started, logs, strict=True)
    ]


def failed(ended: Sequence[subprocess.CompletedProcess[str]], allowed: Sequence[int] = (0,)) -> list[str]:
    """Those that ended otherwise, or with a traceback."""
    bad = [one for one in ended if one.returncode not in allowed or "Traceback" in one.stdout]
    return [f"`apf {' '.join(one.args[:2])}` ended with {one.returncode}: {last_line(one)}" for one in bad]


def first_starts(bench: Workbench, name: str, code: str) -> list[str]:
    """Two at once over nothing, then one."""
    mlruns = bench.folder / f"first-{name}"

    def begin() -> subprocess.Popen[bytes]:
        command, quiet = [sys.executable, "-c", code], subprocess.DEVNULL
        environment = bench.environment(mlruns)
        return subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
        )

    codes = [process.wait(PATIENCE) for process in [begin(), begin()]]
    wrong = [f"{sum(map(bool, codes))} of {len(codes)} fail"] if any(codes) else []
    return [*wrong, "and whoever comes later"] if begin().wait(PATIENCE) else wrong


def same(bench: Workbench) -> list[str]:
    """Two equal runs of a new store."""
    mlruns = bench.folder / "same"
    ended = together(bench, mlruns, [["run", SMOKE, "--json"]] * 2)
    if wrong := failed(ended):
        return wrong
    documents = [document(one) for one in ended]
    ran = Counter(name for one in documents for name, status in one["stages"].items() if status == "ran")
    wrong = [f"{name} ran {times} times" for name, times in ran.items() if times > 1]
    if len({json.dumps(one["test"]["scores"]) for one in documents}) > 1:
        wrong.append("they have other scores")
    found = statuses(mlruns / "mlflow.db")
    return wrong + ([] if found == {"pipeline FINISHED": 2, "trial FINISHED": 2} else [f"MLflow has {found}"])


def different(bench: Workbench) -> list[str]:
    """Three experiments at once, over a new store; then one alone."""
    mlruns = bench.folder / "different"
    names = ("sentiment", "ner", "word-vectors")
    wrong = failed(together(bench, mlruns, [["run", f"params/smoke/{name}.yaml"] for name in names]))
    return wrong + (failed(together(bench, mlruns, [["run", SMOKE]])) if wrong else [])


def two_versions(bench: Workbench) -> Path:
    """A store with two versions of one model. The registry holds absolute paths, so it is used where it is."""
    mlruns = bench.folder / "versions"
    for rate in ("2e-3", "1e-3"):
        if wrong := failed([bench.run(mlruns, "run", SMOKE, f"train.learning_rate={rate}")]):
            raise RuntimeError(wrong[0])
    return mlruns


def promotions(bench: Workbench, mlruns: Path, count: int) -> list[str]:
    """Of the one and of the other version in turn, all at once. That the champion has moved meanwhile is an answer."""
    commands = [
        ["promote", "sentiment", str(1 + number % 2), "--no-gate", "--why", f"race {number}"] for number in range(count)
    ]
    return failed(together(bench, mlruns, commands), (0, 1)) + log_and_registry(mlruns)


def rollbacks(bench: Workbench, mlruns: Path) -> list[str]:
    """Among promotions and questions."""
    commands = [["rollback", "sentiment", "--why", "a"], ["registry", "history", "sentiment"]]
    commands += [["promote", "sentiment", version, "--no-gate", "--why", "b"] for version in ("1", "2")]
    return failed(together(bench, mlruns, commands), (0, 1)) + log_and_registry(mlruns)


def retrainings(bench: Workbench) -> list[str]:
    """Two at once over a new store."""
    mlruns = bench.folder / "retrain"
    return failed(together(bench, mlruns, [["retrain", SMOKE]] * 2)) + log_and_registry(mlruns)


def log_and_registry(mlruns: Path) -> list[str]:
    """What is wrong with the log of promotions, or in the registry by it."""
    logs = list((mlruns / "promotions").glob("*.jsonl"))
    if len(logs) != 1:
        return [f"{len(logs)} logs of promotions"]
    moves = [json.loads(line) for line in logs[0].read_text().splitlines()]
    done = [move for move in moves if move["state"] == "done"]
    wrong = [
        f"{one['version']} was followed by a move from {other['before']}"
        for one, other in itertools.pairwise(done)
        if other["before"] != one["version"]
    ]
    if begun := {move["id"] for move in moves} - {move["id"] for move in moves if move["state"] != "begun"}:
        wrong.append(f"{len(begun)} moves were not finished")
    query = "select version from registered_model_aliases where alias = 'champion'"
    champion = [int(version) for (version,) in rows_of(mlruns / "mlflow.db", query)]
    if champion != [done[-1]["version"]]:
        wrong.append(f"the registry's champion is {champion}, the log's {done[-1]['version']}")
    return wrong
