"""One rank of a call: what torchrun starts."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from apf_tasks.errors import ApfError
from apf_tasks.runtime.calls import RemoteCall, Result
from apf_tasks.runtime.progress import file_listener, listening
from apf_tasks.runtime.signals import stop_signals

CALL, MOMENT, PID = "call.pickle", "moment.json", "pid"


CALLER = "APF_CALLER"
"""The environment variable that tells a rank which process waits for it."""


def read_result(path: Path) -> Result | None:
    """What a rank left there; None where it left nothing."""
    return pickle.loads(path.read_bytes()) if path.is_file() else None


def rank_main(folder: Path) -> None:
    """What torchrun starts: one rank of a call."""
    call: RemoteCall = pickle.loads((folder / CALL).read_bytes())
    index = int(os.environ["RANK"])
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    told = listening(file_listener(folder / MOMENT) if index == 0 else lambda update: None)
    contexts = (stop_signals, lambda: told, *call.contexts, lambda: _announced(folder))
    result = replace(call, contexts=contexts, log_level=call.log_level if index == 0 else logging.ERROR).run()
    _write(folder, index, result)
    if result.error is not None and not isinstance(result.error, ApfError):  # one of ours meets every rank: all end
        raise result.error


@contextmanager
def _announced(folder: Path) -> Iterator[None]:
    """From here on the first rank of a machine hears a signal, and its folder has its number."""
    if os.environ["LOCAL_RANK"] == "0":
        _beside(folder / f"{PID}-{os.environ['GROUP_RANK']}", str(os.getpid()).encode())
    yield


def _write(folder: Path, index: int, outcome: Result) -> None:
    _beside(folder / f"{index}.pickle", pickle.dumps(outcome))


def _beside(path: Path, content: bytes) -> None:
    """The file, whole or not there."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)
