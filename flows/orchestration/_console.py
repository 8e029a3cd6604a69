"""The lines that apf prints on stderr."""

from __future__ import annotations

import logging
import os
import sys


def console_logging() -> None:
    """apf's own lines on stderr; Prefect's are in its UI, and errors come up by themselves.

    Prefect reads the levels from the environment when it is imported.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")  # pages of it when the server goes away
    logger = logging.getLogger("apf")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Lines(logging.Handler):
    """Plain lines on whatever sys.stderr is now: a progress bar puts itself in its place while it lives."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        print(record.getMessage(), file=sys.stderr, flush=True)
