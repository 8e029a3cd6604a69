"""Who trains the trials of a search: this process, one after another, or workers, several at the same time.

Workers belong to whoever starts the search: `trials_run_by` hands them down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from apf_tasks.cache.journal import planning
from apf_tasks.cache.stage import Stage
from apf_tasks.params.experiment import Params
from apf_tasks.params.train import RuntimeParams

logger = logging.getLogger("apf")

Result = Callable[[], Any]
"""Waits for the handle of a stage call, and notes the call in the journal. Raises what the stage raised."""


class Crew(Protocol):
    """Somebody to train trials."""

    def start(self, stage: Stage[Any, Any], arguments: tuple[Any, ...], beside: int) -> Result:
        """Have a stage called: at once, or when the result is asked for. `beside`: calls at the same time, at most."""


class Alone:
    """This process, when the result is asked for."""

    def start(self, stage: Stage[Any, Any], arguments: tuple[Any, ...], beside: int) -> Result:
        """The call itself."""
        return lambda: stage(*arguments)


Crews = Callable[[int, RuntimeParams], AbstractContextManager[Crew]]
"""(trials at the same time, runtime) -> a crew, for as long as its block lasts."""

_crews: ContextVar[Crews | None] = ContextVar("apf_crews", default=None)


@contextmanager
def trials_run_by(crews: Crews) -> Iterator[None]:
    """Within the block trials that run at the same time are trained by what `crews` gives."""
    token = _crews.set(crews)
    try:
        yield
    finally:
        _crews.reset(token)


@contextmanager
def crew_for(params: Params) -> Iterator[Crew]:
    """Somebody to train as many trials at the same time as the params say. A plan trains none, and needs nobody."""
    crews, parallel = _crews.get(), params.search.parallel
    if parallel == 1 or planning():
        yield Alone()
    elif crews is None:
        logger.warning("search     one trial after another: `search.parallel: %d` needs `apf run`", parallel)
        yield Alone()
    else:
        with crews(parallel, params.runtime) as crew:
            yield crew
