"""Who is told what became of a retraining. Import it from `params.py`."""

from __future__ import annotations

from typing import Literal

from apf_tasks.frozen import Frozen

Event = Literal["promoted", "waiting", "refused", "failed"]


class NotifyParams(Frozen):
    """Who is told when a retraining or a promotion ends. A notification that cannot be sent is a warning."""

    webhook: str | None = None
    """Address that a JSON document is posted to. `${NAME}` in it stands for an environment variable, read when it is
    sent: so a secret need not be written here, nor is it recorded."""
    block: str | None = None
    """A notification block of Prefect by its type and name, such as `slack-webhook/team`."""
    on: tuple[Event, ...] = ("promoted", "waiting", "refused", "failed")
    """What to tell of: a new champion, one that waits for approval, a gate that kept the old one, a run that failed."""
