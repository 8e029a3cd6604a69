"""Plant known faults, one at a time, in a copy of the tree, and see whether the tests that are named catch them.

    python -m tests.faults.run [--only N ...]

Exits with 1 when a fault is not caught, when its text is not in its file once, or when its tests fail without it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from tests.support.paths import PROJECT

LIST = Path(__file__).with_name("faults.yaml")
COPIED = ("apf_tasks", "benchmarks", "docs", "flows", "params", "tests")
LIBRARIES = ["matplotlib", "mlflow.tracking", "pandas", "torch", "transformers"]
"""What most tests import. None of them imports this project."""
FORKED_EARLY = "ignore::pytest.PytestAssertRewriteWarning"
"""That a library with a plugin was imported before pytest began is meant to be so."""
FAILED = 1
"""pytest's exit code when tests ran and some failed. Others say that none ran, which catches nothing."""


class Fault(BaseModel):
    """One change that must make the named tests fail."""

    model_config = ConfigDict(extra="forbid")
    file: str
    old: str
    new: str
    tests: list[str]


def read_faults() -> list[Fault]:
    """The committed list."""
    return [Fault.model_validate(entry) for entry in yaml.safe_load(LIST.read_text(encoding="utf-8"))]


def copy_tree(folder: Path) -> None:
    """What tests need, without results and caches."""
    for name in COPIED:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("mlruns"))
    for path in PROJECT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)


def run_tests(folder: Path, tests: Sequence[str]) -> int:
    """pytest's exit code on the tests in this copy, in a process forked from one that has imported the libraries."""
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(LIBRARIES)
    process = forked.Process(target=_run_tests_here, args=(folder, list(tests)))
    process.start()
    process.join()
    return process.exitcode or 0


def _run_tests_here(folder: Path, tests: list[str]) -> None:
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
        del sys.modules[name]  # the copy's own are imported
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        code = int(pytest.main(["-x", "-p", "no:cacheprovider", "-W", FORKED_EARLY, *tests]))
    except Exception:  # would end this process with 1, as a failed test does
        code = int(pytest.ExitCode.INTERNAL_ERROR)
    sys.exit(code)


def plant(folder: Path, fault: Fault) -> str:
    """Whether this fault is caught, in words; the copy is as it was afterwards."""
    path = folder / fault.file
    text = path.read_text(encoding="utf-8")
    if (count := text.count(fault.old)) != 1:
        return f"NOT planted: expected its text once, found it {count} times"
    path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
    try:
        code = run_tests(folder, fault.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    if code == FAILED:
        return "caught"
    return "NOT caught" if code == 0 else f"NOT run: pytest ended with {code}"


def main() -> int:
    """Returns how the process is to end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="faults by their number in the list, from 1")
    only = parser.parse_args().only
    chosen = [(n, fault) for n, fault in enumerate(read_faults(), start=1) if only is None or n in only]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        if run_tests(folder, sorted({test for _, fault in chosen for test in fault.tests})):
            print("The tests fail without any fault: make them pass first.", flush=True)
            return 1
        said = []
        for number, fault in chosen:
            said.append(plant(folder, fault))
            print(f"{number:3} {said[-1]:12} {fault.file}: {fault.new.strip()}", flush=True)
    return int(any(one != "caught" for one in said))


if __name__ == "__main__":
    sys.exit(main())
