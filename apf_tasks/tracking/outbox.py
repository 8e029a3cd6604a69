"""What a run has to tell its tracker: written to a file first, delivered by a thread, and never twice.

`mlruns/outbox/RUN.jsonl` has a line for every point, with the time at which it happened, and at last one that says how
the run ended. Whoever works on a run holds a lock on its file, which the kernel frees when it dies. A tracker that is
away, or slow, or answers with errors delays the delivery and nothing else; the rest is delivered by the next start or
by `apf reconcile`. Points of a run have steps that grow, so before anything is sent for a second time the tracker is
asked how far it has come.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import IO, Any, NamedTuple

from apf_tasks.cache import store
from apf_tasks.tracking import tracker

logger = logging.getLogger("apf")

PAUSE = 2.0
"""Seconds between deliveries, so that points go in batches."""
BATCH = 1000
"""Most points that MLflow takes in one call."""
LAST_SECONDS = 20.0
"""How long the end of a run waits for its delivery."""


class MetricPoint(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    at_ms: int
    step: int


class RunEnd(NamedTuple):
    """How a run ended, and when."""

    status: str
    at_ms: int
    tags: dict[str, str]


class Outbox:
    """The file of one run and the thread that delivers it. Raises StoreError when the file cannot be written."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._path = folder() / f"{run_id}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._courier = Relay(run_id, self._path)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._deliver_on,), name=f"outbox {run_id}", daemon=True
        )
        self._thread.start()

    def add(self, points: Sequence[MetricPoint]) -> None:
        """Write points down; they are delivered in their own time."""
        self._write([{"point": point} for point in points])

    def flush(self) -> None:
        """Everything so far is on the disk when this returns, and on its way."""
        os.fsync(self._file.fileno())
        self._wake.set()

    def close(self, end: RunEnd) -> None:
        """Write the end down and deliver, for some seconds at most. What is left stays in the file."""
        self._write([{"end": end}])
        self.flush()
        self._stop.set()
        self._thread.join(LAST_SECONDS)
        if not self._courier.done:
            logger.warning("           run %s is pending in the outbox; `apf reconcile` delivers it", self.run_id)

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._file.write("".join(json.dumps(line) + "\n" for line in lines))
            self._file.flush()
        except OSError as error:
            raise store.store_error(error, "outbox") from error

    def _deliver_on(self) -> None:
        with self._file:  # and with its lock, for as long as a request may be under way
            last = False
            while not last:
                self._wake.wait(PAUSE)
                self._wake.clear()
                last = self._stop.is_set()
                self._courier.deliver()
            if self._courier.done:
                self._path.unlink(missing_ok=True)


class Relay:
    """Delivers the lines of one file in their order, and remembers where it stopped."""

    def __init__(self, run_id: str, path: Path) -> None:
        self.run_id, self.path = run_id, path
        self.away = False
        self.done = False
        """The end of the run is delivered, and everything before it."""
        self._delivered = 0  # bytes of the file
        self._known: dict[str, int] | None = None
        """Metric -> last step that the tracker has; None when that is in doubt."""

    def deliver(self) -> bool:
        """Send what is new in the file. Whether all of it was sent; what the tracker's trouble is, is said once."""
        try:
            for lines in _batches(self.path, self._delivered):
                self._send([_parsed(line) for line in lines])
                self._delivered += sum(map(len, lines))
        except Exception as error:  # whatever it is, it is not the training's trouble
            self._known = None  # the batch may have arrived all the same
            if not self.away:
                said = str(error).splitlines()[0][:200]
                logger.warning(
                    "           the tracker is unavailable (%s); work continues, records are kept on disk", said
                )
            self.away = True
            return False
        if self.away:
            logger.info("           the tracker is available again; pending records were delivered")
        self.away = False
        return True

    def _send(self, lines: Sequence[dict[str, Any]]) -> None:
        points = [MetricPoint(*line["point"]) for line in lines if "point" in line]
        if points and self._known is None:
            self._known = tracker.last_steps(self.run_id)
        known, new = dict(self._known or {}), []
        for point in points:  # a killed process and the one that resumed may both have written down the same steps
            if point.step > known.get(point.name, -1):
                new.append(point)
                known[point.name] = point.step
        if new:
            tracker.log_points(self.run_id, new)
            self._known = known
        for line in lines:
            if "end" in line:
                tracker.end_run(self.run_id, *RunEnd(*line["end"]))
        self.done = bool(lines) and "end" in lines[-1]  # a run that is resumed writes on behind an end


def _batches(path: Path, start: int) -> Iterator[list[bytes]]:
    """The whole lines from byte `start` on, so many at a time as MLflow takes."""
    with path.open("rb") as file:
        file.seek(start)
        lines = [line for line in file if line.endswith(b"\n")]
    for first in range(0, len(lines), BATCH):
        yield lines[first : first + BATCH]


def _parsed(line: bytes) -> dict[str, Any]:
    """A line; what a kill and a later start have made of two of them is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def folder() -> Path:
    """Where outboxes are."""
    return store.root() / "outbox"


def deliver_leftovers() -> dict[str, bool]:
    """Deliver what dead processes have left. Run -> whether the tracker has everything now.

    A run that this tracker does not know belongs to another one, and stays.
    """
    found: dict[str, bool] = {}
    for path in sorted(folder().glob("*.jsonl")):
        with path.open("rb") as file:
            if not take_file(file):
                continue  # somebody works on the run
            found[path.stem] = tracker.run_exists(path.stem) and Relay(path.stem, path).deliver()
            if found[path.stem]:
                path.unlink(missing_ok=True)
    return found


def take_file(file: IO[bytes]) -> bool:
    """Whether this process works on the file from now on, until it is closed; another one may."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
