"""What ranks are asked to do in tests: a module that they can import."""

from __future__ import annotations

import os
import signal
import time

from apf_tasks.errors import ParamsError


def dies() -> None:
    """One rank is killed, the other waits for ever."""
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


def raises() -> None:
    """All ranks find the same mistake."""
    raise ParamsError("runtime.device", "a device", "none", "Nothing.")
