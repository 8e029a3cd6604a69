"""Waiting for what other processes do."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable


def wait_until(expected: str, happened: Callable[[], bool], seconds: float) -> None:
    """Fails, with what was `expected`, when it has not happened within so many seconds."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"expected within {seconds:g} s: {expected}"
        time.sleep(0.5)


def answers(url: str, name: str = "") -> bool:
    """Whether somebody answers there, when called by `name`."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": name} if name else {}), timeout=60):
            return True
    except OSError:
        return False
