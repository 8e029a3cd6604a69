"""Plant known faults, one at a time, in a copy of the tree, and see whether the tests that are named catch them.

    python -m tests.faults.run [--only N ...] [--old CHECKOUT]

`--old` names a checkout of the commit `OLD`, with its .venv: its own tests run on the same faults too, and what came
of it is written to tests/faults/RESULTS.md. Exits with 1 when the tests of today miss a fault, when its text is not in
its file once, or when the tests fail without any.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from tests.support.paths import PROJECT

LIST, RESULTS = Path(__file__).with_name("faults.yaml"), Path(__file__).with_name("RESULTS.md")
OLD = "818a794"
"""The commit before the tests were moved and the slow ones set apart."""
SERVER = Path(__file__).with_name("pytest_server.py")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "mlruns", "dist", "build", ".mypy_cache", ".ruff_cache")
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "true"}
FAILED = 1
"""pytest's exit code when tests ran and some failed. Others say that none ran, which catches nothing."""


class Place(BaseModel):
    """Where a fault is planted in a tree, and the tests there that must fail with it."""

    model_config = ConfigDict(extra="forbid")
    file: str
    text: str
    """Stands in the file once."""
    becomes: str
    tests: list[str]


class Fault(Place):
    """One change of behaviour."""

    area: str
    old: Place
    """The same in the tree of the commit `OLD`, whose tests may miss it."""


class Outcome(NamedTuple):
    """What came of one fault in one tree."""

    caught: bool
    said: str
    """The test that failed first, or why nothing is known."""
    seconds: float


def read_faults() -> list[Fault]:
    """The committed list. What is not written under `old` was the same there."""
    faults = []
    for entry in yaml.safe_load(LIST.read_text(encoding="utf-8")):
        same = {name: entry[name] for name in Place.model_fields}
        faults.append(Fault.model_validate({**entry, "old": same | entry.get("old", {})}))
    return faults


class Suite:
    """The tests of one checkout, in a copy of it."""

    def __init__(self, folder: Path, output: Path, server: subprocess.Popen[str]) -> None:
        self.folder, self.output, self.server = folder, output, server

    def run(self, tests: Sequence[str]) -> tuple[int, list[str]]:
        """pytest's exit code, and the test that failed."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(list(tests)) + "\n")
        self.server.stdin.flush()
        found = json.loads(self.server.stdout.readline())
        return found["code"], found["failed"]

    def plant(self, place: Place) -> Outcome:
        """What the tests say to this fault; the copy is as it was afterwards."""
        path = self.folder / place.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(place.text)) != 1:
            return Outcome(False, f"not planted: expected its text once, found it {count} times", 0.0)
        started = time.perf_counter()
        path.write_text(text.replace(place.text, place.becomes), encoding="utf-8")
        try:
            code, failed = self.run(place.tests)
        finally:
            path.write_text(text, encoding="utf-8")
        seconds = time.perf_counter() - started
        if code == FAILED:
            return Outcome(True, failed[0], seconds)
        if code == 0:
            return Outcome(False, "NOT caught", seconds)
        return Outcome(False, f"not run: pytest ended with {code}\n{self.output.read_text()}", seconds)


@contextlib.contextmanager
def suite_of(checkout: Path, python: str) -> Iterator[Suite]:
    """A copy of a checkout, in which this Python runs its tests."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder, output = Path(name) / "copy", Path(name) / "output.txt"
        shutil.copytree(checkout, folder, ignore=NOT_COPIED)
        with subprocess.Popen(
            [python, "-P", str(SERVER), str(output)],
            cwd=folder,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            yield Suite(folder, output, server)


def fails_without(suite: Suite, places: Sequence[Place]) -> str:
    """What the tests print when they fail on the tree as it is; "" when they pass."""
    code, _ = suite.run(sorted({test for place in places for test in place.tests}))
    return suite.output.read_text() if code else ""


def write_results(measured: Sequence[tuple[Fault, Outcome, Outcome]]) -> None:
    """RESULTS.md: the rows of these faults anew, others as they stand there."""
    written = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    rows = {_change(line): line for line in written if line.startswith("| ")}
    for fault, new, old in measured:
        cells = [f"{_code(one.said.removeprefix('tests/'))} | {one.seconds:.1f}" for one in (old, new)]
        rows[_cell(fault)] = f"| {fault.area} | {_cell(fault)} | {' | '.join(cells)} |"
    kept = [rows[_cell(fault)] for fault in read_faults() if _cell(fault) in rows]
    then, now = (sum("::" in line.split(" | ")[column] for line in kept) for column in (2, 4))
    text = f"""# Planted faults, and what caught them

Written by `python -m tests.faults.run --old CHECKOUT`, a checkout of {OLD}. Of {len(kept)} faults the tests of that
commit caught {then}, those of today {now}. Seconds are those of the named tests up to the first that fails, with both
suites at work on two cores. Files are named as they are today; `faults.yaml` has both.

| area | fault | caught then by | s | caught now by | s |
|---|---|---|---|---|---|
"""
    RESULTS.write_text(text + "\n".join(kept) + "\n", encoding="utf-8")


def _cell(fault: Fault) -> str:
    return f"{_code(fault.text)} → {_code(fault.becomes)} in {fault.file.removeprefix('apf_tasks/')}"


def _change(line: str) -> str:
    return line.split(" | ")[1]


def _code(text: str) -> str:
    """In a cell of a table."""
    short = " ".join(text.split()).replace("|", "\\|").replace(" \\| ", " \\|")
    return f"`{short}`" if short else "nothing"


def main() -> int:
    """Returns how the process is to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="faults by their number in the list, from 1")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help=f"a checkout of {OLD} with its .venv")
    asked = parser.parse_args()
    numbered = list(enumerate(read_faults(), start=1))
    chosen = [(number, fault) for number, fault in numbered if asked.only is None or number in asked.only]
    with contextlib.ExitStack() as open_suites:
        suites = [open_suites.enter_context(suite_of(PROJECT, sys.executable))]
        if asked.old is not None:
            suites.append(open_suites.enter_context(suite_of(asked.old, str(asked.old / ".venv/bin/python"))))
        threads = open_suites.enter_context(ThreadPoolExecutor(len(suites)))
        places = [[fault for _, fault in chosen], [fault.old for _, fault in chosen]][: len(suites)]
        if trouble := "".join(threads.map(fails_without, suites, places)):
            print(f"{trouble}\nTests fail without any fault: make them pass first.", flush=True)
            return 1
        outcomes = []
        for number, fault in chosen:
            outcomes.append(list(threads.map(Suite.plant, suites, [fault, fault.old])))
            print(f"{number:3} {fault.area}: {fault.becomes.strip() or 'without ' + fault.text.strip()}", flush=True)
            for when, found in zip(("now", "then"), outcomes[-1], strict=False):
                print(f"    {when:4} {found.seconds:5.1f} s  {found.said}", flush=True)
    if asked.old is not None:
        write_results([(fault, new, old) for (_, fault), (new, old) in zip(chosen, outcomes, strict=True)])
    missed = [number for (number, _), found in zip(chosen, outcomes, strict=True) if not found[0].caught]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} caught" + (f", not {missed}" if missed else ""), flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
