"""One rank of a call: what torchrun starts."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.errors import ApfError, portable
from apf_tasks.runtime import ranks
from apf_tasks.runtime.progress import file_listener, listening
from apf_tasks.runtime.signals import stop_signals

logger = logging.getLogger("apf")

Contexts = tuple[Callable[[], AbstractContextManager[Any]], ...]
"""Functions that pickle and make the contexts in which a rank works."""
CALL, MOMENT, PID = "call.pickle", "moment.json", "pid"


CALLER = "APF_CALLER"
"""The environment variable that tells a rank which process waits for it."""


class Call(NamedTuple):
    """What every rank has to do, and where it belongs."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    device: str
    within: Contexts
    log_level: int


class Outcome(NamedTuple):
    """What a rank returned, or what it raised."""

    value: Any = None
    error: BaseException | None = None


def _read(path: Path) -> Outcome | None:
    return pickle.loads(path.read_bytes()) if path.is_file() else None


def rank_main(folder: Path) -> None:
    """What torchrun starts: one rank of a call."""
    call: Call = pickle.loads((folder / CALL).read_bytes())
    index = int(os.environ["RANK"])
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(call.log_level if index == 0 else logging.ERROR)
    told = listening(file_listener(folder / MOMENT) if index == 0 else lambda update: None)
    try:
        with ExitStack() as within, stop_signals(), told, ranks.process_group(call.device):
            for context in call.within:
                within.enter_context(context())
            if os.environ["LOCAL_RANK"] == "0":  # from here on it hears a signal, and its folder has its number
                _beside(folder / f"{PID}-{os.environ['GROUP_RANK']}", str(os.getpid()).encode())
            outcome = Outcome(value=call.function(*call.arguments))
    except ApfError as error:  # every rank finds the same, so every rank ends
        outcome = Outcome(error=error)
    except Exception as error:
        _write(folder, index, Outcome(error=portable(error)))
        raise
    _write(folder, index, outcome)


def _write(folder: Path, index: int, outcome: Outcome) -> None:
    _beside(folder / f"{index}.pickle", pickle.dumps(outcome))


def _beside(path: Path, content: bytes) -> None:
    """The file, whole or not there."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)
