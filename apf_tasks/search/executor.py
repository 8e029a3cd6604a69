"""Who trains the trials of a search: this process, one after another, or workers, several at the same time.

Workers belong to whoever starts the search: `use_executor` hands them down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from apf_tasks.cache.journal import planning
from apf_tasks.cache.stage import Stage
from apf_tasks.context import scoped
from apf_tasks.params.experiment import Params
from apf_tasks.params.train import RuntimeParams

logger = logging.getLogger("apf")

Future = Callable[[], Any]
"""Waits for the handle of a stage call, and notes the call in the journal. Raises what the stage raised."""


class Executor(Protocol):
    """Trains trials."""

    def start(self, stage: Stage[Any, Any], arguments: tuple[Any, ...], beside: int) -> Future:
        """Have a stage called: at once, or when the result is asked for. `beside`: calls at the same time, at most."""


class SerialExecutor:
    """This process, when the result is asked for."""

    def start(self, stage: Stage[Any, Any], arguments: tuple[Any, ...], beside: int) -> Future:
        """The call itself."""
        return lambda: stage(*arguments)


ExecutorFactory = Callable[[int, RuntimeParams], AbstractContextManager[Executor]]
"""(trials at the same time, runtime) -> an executor, for as long as its block lasts."""

_executor_factory: ContextVar[ExecutorFactory | None] = ContextVar("apf_executor", default=None)


def use_executor(factory: ExecutorFactory) -> AbstractContextManager[None]:
    """Within the block trials that run at the same time are trained by the executor that `factory` gives."""
    return scoped(_executor_factory, factory)


@contextmanager
def executor_for(params: Params) -> Iterator[Executor]:
    """The executor of as many trials in parallel as the params say. A plan trains none and starts no workers."""
    factory, parallel = _executor_factory.get(), params.search.parallel
    if parallel == 1 or planning():
        yield SerialExecutor()
    elif factory is None:
        logger.warning("search     one trial after another: `search.parallel: %d` needs `apf run`", parallel)
        yield SerialExecutor()
    else:
        with factory(parallel, params.runtime) as executor:
            yield executor
