"""Notifications of the result of a retraining: by a webhook, by a notification block of Prefect, or by both."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from apf_tasks.errors import PromotionRefusedError
from apf_tasks.params.gate import Event, NotifyParams
from apf_tasks.promotion.gate import GateResult
from apf_tasks.promotion.notices import Notification, post
from apf_tasks.tracking import tracker
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import runtime  # noqa: E402

logger = logging.getLogger("apf")


def send_notification(
    notify: NotifyParams,
    event: Event,
    model: str,
    reason: str,
    version: int | None = None,
    verdict: GateResult | None = None,
) -> None:
    """Send a notification to every receiver in the params. Failures are logged and never raised."""
    if event not in notify.on or not (notify.webhook or notify.block):
        return
    try:
        notice = Notification(
            event=event,
            model=model,
            version=version,
            champion=None if verdict is None else verdict.champion,
            reason=reason,
            gate=() if verdict is None else verdict.rules,
            mlflow_run=None if version is None else _run_of(model, version),
            flow_run=runtime.flow_run.ui_url,
        )
    except Exception as error:
        logger.warning("notify     %s: %s", event, type(error).__name__)
        return
    for what, send in (("webhook", notify.webhook and _webhook), ("block", notify.block and _block)):
        if send:
            _attempt(what, send, notify, notice)


def _attempt(
    what: str, send: Callable[[NotifyParams, Notification], None], notify: NotifyParams, notice: Notification
) -> None:
    try:
        send(notify, notice)
    except Exception as error:  # its text may hold the address, and with it a secret
        logger.warning("notify     the %s was not notified that %s (%s)", what, notice.subject, type(error).__name__)
    else:
        logger.info("notify     the %s was notified that %s", what, notice.subject)


@contextlib.contextmanager
def notify_on_failure(notify: NotifyParams, model: str) -> Iterator[None]:
    """Tell of what ends the block early. A refusal is told where the gate is asked."""
    try:
        yield
    except PromotionRefusedError:
        raise
    except BaseException as error:
        send_notification(notify, "failed", model, f"{type(error).__name__}: {error}")
        raise


def _webhook(notify: NotifyParams, notice: Notification) -> None:
    post(str(notify.webhook), notice)


def _block(notify: NotifyParams, notice: Notification) -> None:
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    block: Any = Block.load(str(notify.block))
    if not isinstance(block, NotificationBlock):
        raise TypeError(f"{notify.block} is not a notification block")
    with block.raise_on_failure():
        block.notify(notice.text, notice.subject)  # type: ignore[unused-coroutine]  # done at once outside of asyncio


def _run_of(model: str, version: int) -> str | None:
    """The MLflow run that registered a version."""
    return str(tracker.client().get_model_version(model, str(version)).run_id or "") or None
