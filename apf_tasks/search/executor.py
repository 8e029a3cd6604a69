"""Who trains the trials of a search: this process, one after another, or workers, several at the same time.

Knows nothing of Prefect, so that a plan answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from apf_tasks.cache.journal import planning
from apf_tasks.cache.stage import Stage
from apf_tasks.params.experiment import Params

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


@contextmanager
def crew_for(params: Params) -> Iterator[Crew]:
    """Somebody to train as many trials at the same time as the params say. A plan trains none, and needs nobody."""
    if params.search.parallel == 1 or planning():
        yield Alone()
        return
    from flows.orchestration.workers import Workers  # with prefect, which takes seconds to import

    with Workers(params.search.parallel, params.runtime) as workers:
        yield workers
