"""What the campaigns share: commands that can be disturbed, what they leave behind, and the figure of a campaign."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.cache.fingerprints import file_digest
from tests.support.paths import PROJECT

MARK = "APF_CAMPAIGN"
"""The environment variable by which the processes of a campaign are found: no others are looked at or ended."""
SMOKE = "params/smoke/sentiment.yaml"
CHANGES = ("tokens_per_second", "system/", "seconds")
"""Metrics with these in their names depend on the machine."""
PATIENCE = 900.0
"""Seconds after which a command counts as one that does not end."""
Points = dict[str, list[tuple[str, int, float]]]


class Figure(NamedTuple):
    """What a campaign found."""

    good: int
    total: int
    what: str
    """That so many of so many did."""
    wrong: list[str]

    def __str__(self) -> str:
        return f"{self.good} of {self.total} {self.what}"


class Cases:
    """Cases one after the other, each printed when it is known."""

    def __init__(self, what: str) -> None:
        self._what, self._total, self._wrong = what, 0, list[str]()

    def add(self, name: str, problems: Iterable[str], note: str = "") -> None:
        """A case, with what is wrong about it: nothing, where it went well."""
        found = [problem.strip() for problem in problems if problem]
        self._total += 1
        if found:
            self._wrong.append(f"{name}: {'; '.join(found)[:600]}")
        print(f"   {name}: {'; '.join(found)[:600] or 'well'}{f' ({note})' if note else ''}", flush=True)

    @property
    def figure(self) -> Figure:
        """Of all of them."""
        return Figure(self._total - len(self._wrong), self._total, self._what, self._wrong)


class Workbench:
    """The `apf` command over stores of its own, in processes that can be told from all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex
        (folder / "tmp").mkdir(parents=True, exist_ok=True)

    def environment(self, mlruns: Path, **more: str) -> dict[str, str]:
        """Nothing of the caller's servers and stores."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "APF_"))
        }
        own = {"APF_MLRUNS": str(mlruns), "TMPDIR": str(self.folder / "tmp"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return kept | own | {MARK: self.token} | more

    def start(self, mlruns: Path, *words: str, log: Path, **more: str) -> subprocess.Popen[bytes]:
        """In a process group of its own. Its output goes to a file: an orphan would hold the other end of a pipe."""
        with log.open("ab") as sink:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli.main", *words],
                cwd=PROJECT,
                env=self.environment(mlruns, **more),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def run(
        self, mlruns: Path, *words: str, seconds: float = PATIENCE, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """To its end. One that does not end in time is killed, and has the exit code of a kill."""
        log = self.folder / f"{uuid.uuid4().hex}.log"
        process = self.start(mlruns, *words, log=log, **more)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            send(process, signal.SIGKILL, "group")
            process.wait()
        text = log.read_text(errors="replace")
        log.unlink()
        return subprocess.CompletedProcess(words, process.returncode, text, text)

    def alive(self) -> dict[int, str]:
        """Process -> its command line, of this campaign."""
        found, mark = {}, f"{MARK}={self.token}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
            except OSError:
                continue  # it has ended meanwhile, or is somebody else's
        return found

    def orphans(self, seconds: float = 30) -> list[str]:
        """What still lives so long after a disturbance; ended then."""
        deadline = time.monotonic() + seconds
        while (found := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.5)
        for pid in found:
            _kill(pid)
        return [f"{len(found)} alive after {seconds:.0f} s: {', '.join(sorted(set(found.values())))}"] if found else []

    @contextmanager
    def serving(self, mlruns: Path, *words: str, log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A server within the block."""
        process = self.start(mlruns, *words, log=log, **more)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                send(process, signal.SIGKILL, "group")
                process.wait()


def send(process: subprocess.Popen[bytes], number: signal.Signals, target: str) -> None:
    """To the command's whole `group`, or to its `main` process alone."""
    with suppress(ProcessLookupError):
        (os.killpg if target == "group" else os.kill)(process.pid, number)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def last_line(ended: subprocess.CompletedProcess[str]) -> str:
    """What a command said last."""
    lines = [line for line in ended.stdout.splitlines() if line.strip()]
    return lines[-1][:250] if lines else ""


def document(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a command with --json printed."""
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(line)
    return found


def outcome(mlruns: Path) -> dict[str, Any]:
    """What an experiment came to, by the stage store alone: its weights, choice, scores and registered model."""
    stages = mlruns / "stages"
    chosen = [json.loads(path.read_text()) for path in sorted(stages.glob("select/*/handle.json"))]
    return {
        "weights": {p.parts[-3]: file_digest(p) for p in sorted(stages.glob("train_model/*/model/model.safetensors"))},
        "registered": sorted(file_digest(p) for p in stages.glob("register/*/model/model.safetensors")),
        "choice": [(one["fingerprint"], [c["score"] for c in one["candidates"]]) for one in chosen],
        "report": [json.loads(path.read_text()) for path in sorted(stages.glob("evaluate/*/report.json"))],
    }


def rows_of(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Of an SQLite database that is only read."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def points(database: Path) -> Points:
    """Trial -> the metrics that its runs in MLflow have, by step."""
    trials = dict(rows_of(database, "select run_uuid, value from tags where key='apf.kind' and value='trial'"))
    names = dict(rows_of(database, "select run_uuid, name from runs"))
    found: Points = {}
    for run, key, step, value in rows_of(database, "select run_uuid, key, step, value from metrics"):
        if run in trials and not any(part in key for part in CHANGES):
            found.setdefault(names[run], []).append((key, step, value))
    return found


def statuses(database: Path) -> dict[str, int]:
    """Kind and state of MLflow's runs -> how many."""
    kinds = dict(rows_of(database, "select run_uuid, value from tags where key='apf.kind'"))
    runs = rows_of(database, "select run_uuid, status from runs")
    return dict(Counter(f"{kinds.get(run, '?')} {status}" for run, status in runs))


def differences(undisturbed: Path, mlruns: Path) -> list[str]:
    """In what a store is not that of the undisturbed run."""
    expected, found = outcome(undisturbed), outcome(mlruns)
    wrong = [f"another {name}" for name in expected if expected[name] != found[name]]
    wrong += _other_points(points(undisturbed / "mlflow.db"), points(mlruns / "mlflow.db"))
    running = [
        f"{n} left as {state}" for state, n in statuses(mlruns / "mlflow.db").items() if state.endswith("RUNNING")
    ]
    return wrong + running


def _other_points(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    wrong = []
    for name in sorted(expected.keys() | found.keys()):
        then, now = Counter(expected.get(name, [])), Counter(found.get(name, []))
        if then != now:
            wrong.append(f"points of {name}: {(then - now).total()} lost, {(now - then).total()} more")
    return wrong


def undisturbed(bench: Workbench, *words: str) -> Path:
    """The store of a run that nothing happens to. Raises RuntimeError when even that fails."""
    mlruns = bench.folder / "undisturbed"
    ended = bench.run(mlruns, "run", *words)
    if ended.returncode:
        raise RuntimeError(f"the undisturbed run fails: {ended.stdout[-2000:]}")
    return mlruns
