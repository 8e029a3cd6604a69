"""Where results are stored and runs recorded: a value of the current context, else what the environment says."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from apf_tasks.context import scoped


@dataclass(frozen=True)
class Workspace:
    """A stage store and the MLflow servers that belong to it. Pickles: a call in another process takes it along."""

    root: Path
    """The folder of everything apf records."""
    tracking_uri: str | None = None
    """None: a database in `root`."""
    registry_uri: str | None = None
    """None: the same as for tracking."""

    def active(self) -> AbstractContextManager[None]:
        """Within the block this context (this thread) stores and records here."""
        return scoped(_active, self)


_active: ContextVar[Workspace | None] = ContextVar("apf_workspace", default=None)


def current_workspace() -> Workspace:
    """The active workspace; without one, that of APF_MLRUNS, MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI as of now."""
    return _active.get() or Workspace(
        Path(os.environ.get("APF_MLRUNS", "mlruns")).resolve(),
        os.environ.get("MLFLOW_TRACKING_URI") or None,
        os.environ.get("MLFLOW_REGISTRY_URI") or None,
    )
