"""Are the rows of today like those that the champion learned from? If not, an event says so."""

from __future__ import annotations

import logging
import sys
from typing import Any

from apf_tasks import store
from apf_tasks.artifacts import DriftReport, Split
from apf_tasks.errors import RegistryError
from apf_tasks.params import Params
from apf_tasks.params_file import load_params
from apf_tasks.past_runs import past_run
from apf_tasks.promotion import champion_of
from apf_tasks.stages import ingest, measure_drift, split_rows
from flows.environment import prepare

prepare()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402
from prefect.events import emit_event  # noqa: E402

EVENT = "apf.data.drifted"
RESOURCE = "apf.experiment."
logger = logging.getLogger("apf")


@flow(name="drift", flow_run_name="{params}")
def drift(params: str, overrides: dict[str, Any] | None = None) -> DriftReport:
    """Compare new rows with those that the champion learned from; emit an event when they have drifted.

    The event `apf.data.drifted` of the resource `apf.experiment.NAME` starts the deployments that wait for it.
    """
    experiment = load_params(params, overrides or {})
    report = drifted(experiment)
    logger.info("drift      %s", report.describe())
    if report.drifted:
        resource = {"prefect.resource.id": RESOURCE + experiment.name, "prefect.resource.name": experiment.name}
        emit_event(EVENT, resource, payload=report.model_dump(mode="json", exclude={"path"}))
    return report


def drifted(experiment: Params) -> DriftReport:
    """The stages of the comparison."""
    then = champion_split(experiment.model_name)
    raw = ingest(experiment.data, experiment.family)
    now = split_rows(raw, experiment.split, experiment.family)
    return measure_drift(then, now, experiment.family, experiment.drift)


def champion_split(name: str) -> Split:
    """The rows that the champion was made from, as the store has them. Raises RegistryError."""
    version = champion_of(name)
    if version is None:
        raise RegistryError(f"registry {name}", "a champion", "none", "Run the experiment first.")
    run = past_run(f"models:/{name}/{version}")
    facts = next((f for f in run.provenance.stages if f.stage == "split_rows"), None)
    fingerprint = "" if facts is None else str(facts.handle.get("fingerprint", ""))
    split = store.with_fingerprint("split_rows", fingerprint, Split)
    if split is None:
        found = "not in this store, mlruns/stages/split_rows"
        do = "Compare where the champion was trained, or `apf rerun` its run here first."
        raise RegistryError(f"rows of {name}/{version}", "the split that it was trained on", found, do)
    return split


if __name__ == "__main__":
    from flows.cli import main

    sys.exit(main(["drift", *sys.argv[1:]]))
