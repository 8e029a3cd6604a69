"""Scheduled: has anything changed? Then train again, and let the gate decide whether the new model takes over."""

from __future__ import annotations

import logging
from typing import Any, Literal

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.errors import RegistryError
from apf_tasks.params.base import Frozen
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import origin
from apf_tasks.pipelines import drifted, pipeline
from apf_tasks.planning.plan import plan_stages
from apf_tasks.promotion.gate import GateResult
from apf_tasks.promotion.warm_start import as_tag, last_resolved_aliases, pin_aliases, resolve_aliases
from apf_tasks.runs.experiments import load_params
from apf_tasks.runs.recorded import recorded
from apf_tasks.runs.reused import deliver_outbox
from apf_tasks.tracking.champion import champion_of
from flows.orchestration.notify import notify_on_failure, send_notification
from flows.orchestration.settings import apply_defaults
from flows.promote import gate_in_flow

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402

from flows.orchestration.context import on_prefect  # noqa: E402

logger = logging.getLogger("apf")


class RetrainResult(Frozen):
    """What came of a retraining."""

    outcome: Literal["nothing new", "would retrain", "promoted", "first champion", "waiting for approval"]
    reason: str
    """What is new."""
    version: int | None = None
    """The version in the registry."""
    verdict: GateResult | None = None


@flow(name="retrain", flow_run_name="{params}")
def retrain(
    params: str, overrides: dict[str, Any] | None = None, refresh: bool = False, dry_run: bool = False
) -> RetrainResult:
    """Train again when data, params or code have changed, and promote the new model if it passes the gate.

    `refresh` evaluates the gate even if nothing has changed; `dry_run` reports what is new. Raises
    PromotionRefusedError when the gate keeps the champion.
    """
    experiment = load_params(params, overrides)
    if dry_run:
        return _retrained(experiment, origin(params), refresh, dry_run)
    with notify_on_failure(experiment.notify, experiment.model_name):
        return _retrained(experiment, origin(params), refresh)


def _retrained(written: Params, params_file: str, refresh: bool, dry_run: bool = False) -> RetrainResult:
    deliver_outbox()  # the last run may be among what waits
    resolved = resolve_aliases(written)
    last = last_resolved_aliases(written)  # another champion alone is no reason to train again
    new = what_is_new(pin_aliases(written, {**resolved, **(last or {})}))
    experiment = pin_aliases(written, resolved)
    if new is None and not refresh:
        logger.info("retrain    nothing new")
        return RetrainResult(outcome="nothing new", reason="data, params and code are unchanged since the last run")
    reason = new or "refresh was requested"
    logger.info("retrain    %s", reason)
    if dry_run:
        return RetrainResult(outcome="would retrain", reason=reason)
    with on_prefect():
        registered = recorded(experiment, _drift_and_pipeline, params_file=params_file, tags=as_tag(resolved))
    return _promoted(registered, experiment, reason)


def _drift_and_pipeline(experiment: Params) -> RegisteredModel:
    """First how far the new rows are from the champion's, for the record; that decides nothing."""
    try:
        logger.info("drift      %s", drifted(experiment).describe())
    except RegistryError as error:
        logger.info("drift      not measured: %s", error.found)
    return pipeline(experiment)


def what_is_new(experiment: Params) -> str | None:
    """Why the first stage that would run would run; None when the whole pipeline is stored."""
    first = next((stage_run for stage_run in plan_stages(experiment, pipeline) if stage_run.status == "runs"), None)
    return None if first is None else f"{first.stage} {first.label}".strip() + f": {first.reason}"


def _promoted(registered: RegisteredModel, experiment: Params, reason: str) -> RetrainResult:
    name, version = registered.name, registered.version
    if champion_of(name) == version:
        send_notification(experiment.notify, "promoted", name, f"the first version: {reason}", version)
        return RetrainResult(outcome="first champion", reason=reason, version=version)
    ask = experiment.gate.approve
    verdict = gate_in_flow(name, version, experiment, f"retrained: {reason}", ask=ask)
    outcome: Literal["waiting for approval", "promoted"] = "waiting for approval" if ask else "promoted"
    return RetrainResult(outcome=outcome, reason=reason, version=version, verdict=verdict)
