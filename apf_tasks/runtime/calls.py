"""A function call that another process makes: what it needs, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from apf_tasks.cache.workspace import Workspace, current_workspace
from apf_tasks.errors import portable

Contexts = tuple[Callable[[], AbstractContextManager[Any]], ...]
"""Functions that pickle and make the contexts in which a call is made."""


class Result(NamedTuple):
    """What a call returned, or what it raised."""

    value: Any = None
    error: Exception | None = None
    """One that pickles."""


@dataclass(frozen=True)
class RemoteCall:
    """`function(*arguments)` within contexts, in the workspace of the process that describes it. Pickles."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    contexts: Contexts = ()
    log_level: int | None = None
    """None: as the other process has it."""
    workspace: Workspace = field(default_factory=current_workspace)

    def run(self) -> Result:
        """Make the call here, inside its contexts, the first one outermost."""
        if self.log_level is not None:
            logging.getLogger("apf").setLevel(self.log_level)
        try:
            with self.workspace.active(), ExitStack() as within:
                for context in self.contexts:
                    within.enter_context(context())
                return Result(value=self.function(*self.arguments))
        except Exception as error:
            return Result(error=portable(error))
