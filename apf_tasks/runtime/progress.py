"""Long work shows how far it is, how fast it goes and how long it will take."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from apf_tasks.context import scoped

logger = logging.getLogger("apf")

LINE_SECONDS = 10
"""Without a terminal, one line this often."""

Advance = Callable[[int, str], None]
"""(done so far, note)"""


class ProgressUpdate(NamedTuple):
    """How far a piece of work is."""

    label: str
    done: int
    total: int
    unit: str
    note: str = ""
    rate: float = 0.0
    """Units per second since this start; 0 when not known yet."""

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f" · {self.seconds_left:.0f} s left"
        pace = f"{self.rate:.2f} {self.unit}/s · " if self.rate > 0 else ""
        return f"{self.label:<10} {self.done}/{self.total} {self.unit} · {pace}{self.note}{left}"


Listener = Callable[[ProgressUpdate], None]

_listener: ContextVar[Listener | None] = ContextVar("apf_progress_listener", default=None)


current_listener = _listener.get
"""Who is told now, if anybody."""


def listening(listener: Listener) -> AbstractContextManager[None]:
    """Within the block, whoever listens shows the progress, and nothing is shown here."""
    return scoped(_listener, listener)


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar on a terminal, a line every few seconds elsewhere. Rate and remaining time count from this start."""
    if (listener := _listener.get()) is not None:
        listener(ProgressUpdate(label, 0, total, unit))
        yield _paced(label, total, unit, listener)
    elif sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
        with _bar(label, total, unit) as advance:
            yield advance
    else:
        yield _paced(label, total, unit, throttled_logger())


def file_listener(path: Path) -> Listener:
    """A listener that keeps the latest moment in a file, for another process."""

    def write(update: ProgressUpdate) -> None:
        path.with_suffix(".new").write_text(json.dumps(update))
        path.with_suffix(".new").replace(path)

    return write


def read_moment(path: Path) -> ProgressUpdate | None:
    """The latest moment in such a file."""
    return ProgressUpdate(*json.loads(path.read_text())) if path.is_file() else None


def throttled_logger() -> Listener:
    """A listener that writes a line every few seconds."""
    said = time.monotonic()

    def say(update: ProgressUpdate) -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            logger.info("%s", update)

    return say


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn(unit + " · {task.fields[note]} ·"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total, note="")
        yield lambda done, note: bars.update(task, completed=done, note=note)


def _paced(label: str, total: int, unit: str, listener: Listener) -> Advance:
    started = time.monotonic()
    first: int | None = None

    def advance(done: int, note: str) -> None:
        nonlocal first
        first = done - 1 if first is None else first
        rate = (done - first) / max(time.monotonic() - started, 1e-9)
        listener(ProgressUpdate(label, done, total, unit, note, rate))

    return advance
