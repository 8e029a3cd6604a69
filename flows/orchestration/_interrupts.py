"""Ctrl-C: who hears it, and what happens to one that falls into a destructor."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator

LOST_SECONDS = 0.1


@contextlib.contextmanager
def sigint_blocked() -> Iterator[None]:
    """What this thread starts within the block never hears Ctrl-C, unless it unblocks the signal itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def resend_lost_sigint() -> None:
    """Ctrl-C that falls into a destructor, where Python prints any error and goes on, comes again a moment later.

    The hook is C code, into which another Ctrl-C cannot fall; a thread, which hears none, does the rest.
    """
    if sys.unraisablehook is not sys.__unraisablehook__:  # somebody else listens
        return
    errors: queue.SimpleQueue[sys.UnraisableHookArgs] = queue.SimpleQueue()

    def listen() -> None:
        while True:
            _repeat_or_print(errors.get())  # and forget it: it holds what was to be destroyed

    threading.Thread(target=listen, daemon=True).start()
    atexit.register(setattr, sys, "unraisablehook", sys.__unraisablehook__)  # the thread does not live as long
    sys.unraisablehook = errors.put


def _repeat_or_print(lost: sys.UnraisableHookArgs) -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        time.sleep(LOST_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)
    else:
        sys.__unraisablehook__(lost)
