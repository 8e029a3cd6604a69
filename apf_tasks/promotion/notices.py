"""What is told of a retraining or a promotion, and the way to a webhook."""

from __future__ import annotations

import os
import re
from typing import Any

import requests

from apf_tasks.errors import ParamsError
from apf_tasks.params.base import Frozen
from apf_tasks.params.gate import Event
from apf_tasks.promotion.gate import GateCheck

SECONDS = 10
"""How long a webhook may take to answer."""
VERBS = {
    "promoted": "is the champion now",
    "waiting": "waits for approval",
    "refused": "was refused",
    "failed": "failed",
}


class Notification(Frozen):
    """One thing that happened to a model."""

    event: Event
    model: str
    """Its name in the registry."""
    version: int | None = None
    champion: str | None = None
    """The version with which it was compared."""
    reason: str
    gate: tuple[GateCheck, ...] = ()
    mlflow_run: str | None = None
    """The run that registered the version."""
    flow_run: str | None = None
    """Address of the flow run in Prefect's UI."""

    @property
    def subject(self) -> str:
        """One line."""
        which = self.model if self.version is None else f"{self.model}/{self.version}"
        return f"apf: {which} {VERBS[self.event]}"

    @property
    def text(self) -> str:
        """The same with the reason and the rules of the gate, a line each."""
        rules = [f"{'passed' if r.passed else 'FAILED'} {r.name}: {r.found} (needed: {r.needed})" for r in self.gate]
        return "\n".join([self.subject, self.reason, *rules, *([self.flow_run] if self.flow_run else [])])


def document(notice: Notification) -> dict[str, Any]:
    """The JSON that a webhook gets; `text` is what Slack and Mattermost show."""
    return {"text": notice.text, **notice.model_dump(mode="json")}


def post(webhook: str, notice: Notification) -> None:
    """Post the document to `webhook`. Raises ParamsError for a variable that is not set, or requests' errors."""
    answer = requests.post(resolved(webhook), json=document(notice), timeout=SECONDS)
    answer.raise_for_status()


def resolved(webhook: str) -> str:
    """The address with the environment variables of `${NAME}`. Raises ParamsError."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ParamsError("notify.webhook", f"the environment variable {found[1]}", "it is not set", "Set it.")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, webhook)
