"""Whether current rows resemble those that the champion was trained on; if not, an event is emitted."""

from __future__ import annotations

import logging
from typing import Any

from apf_tasks.artifacts import DriftReport
from apf_tasks.pipelines import drifted
from apf_tasks.runs.experiments import load_params
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402
from prefect.events import emit_event  # noqa: E402

from flows.orchestration.context import on_prefect  # noqa: E402

EVENT = "apf.data.drifted"
RESOURCE = "apf.experiment."
logger = logging.getLogger("apf")


@flow(name="drift", flow_run_name="{params}")
def drift(params: str, overrides: dict[str, Any] | None = None) -> DriftReport:
    """Compare new rows with those that the champion was trained on; emit an event when they have drifted.

    The event `apf.data.drifted` of the resource `apf.experiment.NAME` starts the deployments that wait for it.
    """
    experiment = load_params(params, overrides)
    with on_prefect():
        report = drifted(experiment)
    logger.info("drift      %s", report.describe())
    if report.drifted:
        resource = {"prefect.resource.id": RESOURCE + experiment.name, "prefect.resource.name": experiment.name}
        emit_event(EVENT, resource, payload=report.model_dump(mode="json", exclude={"path"}))
    return report
