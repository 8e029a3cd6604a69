"""Values of the current context: what a caller hands down for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def scoped(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Within the block the variable has this value, in this thread."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
