"""Long work shows how far it is, how fast it goes and how long it will take."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("apf")

LINE_SECONDS = 10
"""Without a terminal, one line this often."""

Advance = Callable[[int, str], None]
"""(done so far, note)"""


@contextmanager
def progress(label: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar on a terminal, a line every few seconds elsewhere. Rate and remaining time count from this start."""
    if sys.stderr.isatty() and logger.isEnabledFor(logging.INFO):
        with _bar(label, total, unit) as advance:
            yield advance
    else:
        yield _lines(label, total, unit)


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


def _lines(label: str, total: int, unit: str) -> Advance:
    started = said = time.monotonic()
    first: int | None = None

    def advance(done: int, note: str) -> None:
        nonlocal said, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        if now - said < LINE_SECONDS:
            return
        said = now
        rate = (done - first) / (now - started)
        left = (total - done) / rate if rate > 0 else 0
        logger.info("%-10s %d/%d %s · %.2f %s/s · %s · %.0f s left", label, done, total, unit, rate, unit, note, left)

    return advance
