"""A version becomes the champion, if the gate lets it."""

from __future__ import annotations

from functools import partial

from apf_tasks.params.experiment import Params
from apf_tasks.promotion.gate import GateResult
from apf_tasks.promotion.promote import gate_and_promote, to_promote
from flows.orchestration.notify import notify_on_failure, send_notification
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402

from flows.orchestration.context import on_prefect  # noqa: E402


@flow(name="promote", flow_run_name="{name}")
def promote(name: str, version: int | None = None, why: str = "", dry_run: bool = False) -> GateResult:
    """Evaluate a version (default: the challenger) against the champion on current data, and make it the champion.

    By the params of the run that registered it. With `dry_run` it is judged alone. Raises PromotionRefusedError when a
    rule of the gate fails: no alias is moved then.
    """
    number, params = to_promote(name, version, why, dry_run)
    if dry_run:
        return gate_in_flow(name, number, params, why, dry_run)
    with notify_on_failure(params.notify, name):
        return gate_in_flow(name, number, params, why)


def gate_in_flow(
    name: str, version: int, params: Params, why: str, dry_run: bool = False, ask: bool = False
) -> GateResult:
    """The same within a flow: stages run as tasks, and people are notified. Raises PromotionRefusedError."""
    notify = partial(send_notification, params.notify)
    with on_prefect():
        return gate_and_promote(name, version, params, why, dry_run, ask, notify)
