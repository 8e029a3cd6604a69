"""Runs pytest in this folder whenever it is asked to, in a fork of a process that has imported the libraries.

Imports nothing of this project, so that each fork imports it as it stands in the folder then; and works with the Python
of an older checkout. Reads lines of JSON, a list of tests each, and answers each with {"code": ..., "failed": [...]}.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

LIBRARIES = ["matplotlib", "mlflow.tracking", "pandas", "sklearn", "torch", "transformers"]
"""What most tests import. None of them imports this project."""
FORKED_EARLY = "ignore::pytest.PytestAssertRewriteWarning"
"""That a library with a plugin was imported before pytest began is meant to be so."""
FORK = multiprocessing.get_context("fork")


class _Failures:
    """A plugin that remembers which tests failed."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """pytest calls this after each phase of a test."""
        if report.failed:
            self.found.append(report.nodeid)


def _run_here(tests: list[str], output: str, answer: Connection) -> None:
    """Up to the first test that fails."""
    with Path(output).open("w") as file:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    failures = _Failures()
    code = pytest.main(["-x", "-p", "no:cacheprovider", "-W", FORKED_EARLY, *tests], [failures])
    answer.send({"code": int(code), "failed": failures.found})


def _run_forked(tests: list[str], output: str) -> dict[str, Any]:
    """The code is negative, the number of a signal, where the fork was killed."""
    receive, send = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_run_here, args=(tests, output, send))
    process.start()
    send.close()
    found: dict[str, Any] = {}
    with contextlib.suppress(EOFError):
        found = receive.recv()
    process.join()
    return found or {"code": process.exitcode or int(pytest.ExitCode.INTERNAL_ERROR), "failed": []}


def main(output: str) -> None:
    """`output`: the file that gets what the last run printed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork keeps no thread of these libraries; none is needed
    for line in sys.stdin:
        found = _run_forked(json.loads(line), output)
        if found["code"] < 0:  # libraries have threads, and a fork may meet one of them at a bad moment
            found = _run_forked(json.loads(line), output)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
