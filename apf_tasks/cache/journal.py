"""What the stages of one pipeline run did, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from apf_tasks.artifacts import Artifact
from apf_tasks.context import scoped

V = TypeVar("V")


@dataclass(frozen=True)
class StageRun:
    """One stage call in a plan or a report."""

    stage: str
    label: str
    status: str
    """`reused`, `ran`, or (in a plan) `runs`."""
    reason: str
    seconds: float
    handle: Artifact | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """In a plan: what a stage that would run takes. An argument that is not known yet is a Pending."""


class NotComputedYet(Exception):  # noqa: N818  # a state of a plan, not an error
    """A plan touched the content of a result that no stage has computed yet."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"{stage} has not run: its result is not known yet")
        self.stage = stage


class Pending:
    """What a stage that was only planned hands on. Touching an attribute of the result raises NotComputedYet."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python looks up by itself, as to copy or to pickle
            raise AttributeError(name)
        raise NotComputedYet(self.__dict__["stage"])


def or_pending(value: Callable[[], V]) -> V:
    """The value; a Pending in its place, typed as the value, where it depends on a result not computed yet."""
    try:
        return value()
    except NotComputedYet as missing:
        return cast(V, Pending(missing.stage))


def computed(result: V | None) -> V | None:
    """The result of a stage; None where it is only planned."""
    return None if isinstance(result, Pending) else result


@dataclass
class PipelineRun:
    """What the stages of one pipeline did (or, when `dry`, would do), in order."""

    dry: bool = False
    prepare: bool = False
    """In a dry journal: the stages before the first training run all the same."""
    run_id: str = ""
    """The MLflow run of the pipeline."""
    stage_runs: list[StageRun] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    """How each trial of the search stands."""
    expected_steps: int = 0
    """Optimizer steps that the search is expected to cost; 0 when not known yet."""
    test_opened: int = 0
    """How many models were tested on its test rows when it was made; 0 when that is now."""


_journal: ContextVar[PipelineRun | None] = ContextVar("apf_journal", default=None)


_label: ContextVar[str] = ContextVar("apf_label", default="")


@contextmanager
def journal(dry: bool = False, prepare: bool = False) -> Iterator[PipelineRun]:
    """Collect what stages do inside the block; an inner block writes into the outer journal, unless it alone is dry.

    With `dry`, nothing runs: stored handles or Pending come back. With `prepare` too, the preparing stages run.
    """
    if (outer := _journal.get()) is not None and outer.dry >= dry:
        yield outer
        return
    with scoped(_journal, pipeline := PipelineRun(dry, prepare)):
        yield pipeline


def note_trials(trials: list[dict[str, Any]], expected_steps: int) -> None:
    """Write down how the trials of a search stand, in place of what stood there."""
    if (pipeline := _journal.get()) is not None:
        pipeline.trials, pipeline.expected_steps = trials, expected_steps


def planning() -> bool:
    """Whether nothing is to run."""
    return (pipeline := _journal.get()) is not None and pipeline.dry


def current_label() -> str:
    """How the running stage call is called in front of people: the searched values of a trial, the name of a split."""
    return _label.get()


def labelled_as(label: str) -> AbstractContextManager[None]:
    """Within the block, that is how the stage call is called."""
    return scoped(_label, label)
