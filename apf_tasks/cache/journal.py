"""What the stages of one pipeline run did, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from apf_tasks.artifacts import Artifact


@dataclass(frozen=True)
class Visit:
    """One stage call in a plan or a report."""

    stage: str
    label: str
    status: str
    """`reused`, `ran`, or (in a plan) `runs`."""
    reason: str
    seconds: float
    handle: Artifact | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """In a plan: what a stage that would run takes. An argument that is not known yet is an Unknown."""


class Unknown:
    """What a stage that was only planned hands on: its content is not known yet."""

    def __init__(self, stage: str) -> None:
        self.stage = stage


@dataclass
class Journal:
    """What the stages of one pipeline did (or, when `dry`, would do), in order."""

    dry: bool = False
    prepare: bool = False
    """In a dry journal: the stages before the first training run all the same."""
    run_id: str = ""
    """The MLflow run of the pipeline."""
    visits: list[Visit] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    """How each trial of the search stands."""
    expected_steps: int = 0
    """Optimizer steps that the search is expected to cost; 0 when not known yet."""


_journal: ContextVar[Journal | None] = ContextVar("apf_journal", default=None)


_label: ContextVar[str] = ContextVar("apf_label", default="")


@contextmanager
def journal(dry: bool = False, prepare: bool = False) -> Iterator[Journal]:
    """Collect what stages do inside the block; an inner block writes into the outer journal, unless it alone is dry.

    With `dry`, nothing runs: stored handles or Unknown come back. With `prepare` too, the preparing stages run.
    """
    if (outer := _journal.get()) is not None and outer.dry >= dry:
        yield outer
        return
    token = _journal.set(book := Journal(dry, prepare))
    try:
        yield book
    finally:
        _journal.reset(token)


def note_trials(trials: list[dict[str, Any]], expected_steps: int) -> None:
    """Write down how the trials of a search stand, in place of what stood there."""
    if (book := _journal.get()) is not None:
        book.trials, book.expected_steps = trials, expected_steps


def planning() -> bool:
    """Whether nothing is to run."""
    return (book := _journal.get()) is not None and book.dry


def current_label() -> str:
    """How the running stage call is called in front of people: the searched values of a trial, the name of a split."""
    return _label.get()


@contextmanager
def called(label: str) -> Iterator[None]:
    """Within the block, that is how the stage call is called."""
    token = _label.set(label)
    try:
        yield
    finally:
        _label.reset(token)
