"""SIGTERM and Ctrl-C, heard between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_CAUGHT: list[list[int]] = []


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C end the current step first; the list gets the signal's number. An inner block shares it."""
    if _CAUGHT or threading.current_thread() is not threading.main_thread():
        yield _CAUGHT[-1] if _CAUGHT else []  # python delivers signals to the main thread alone
        return
    caught: list[int] = []
    before = {s: signal.signal(s, lambda number, _: caught.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    _CAUGHT.append(caught)
    try:
        yield caught
    finally:
        _CAUGHT.remove(caught)
        for number, handler in before.items():
            signal.signal(number, handler)
