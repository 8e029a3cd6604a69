"""A version becomes the champion if the gate lets it. Whoever calls decides how stages run and who is notified."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from apf_tasks.errors import ParamsError, PromotionRefusedError, RegistryError
from apf_tasks.params.experiment import Params
from apf_tasks.params.gate import Event
from apf_tasks.promotion.gate import GateResult
from apf_tasks.promotion.judge import evaluate_challenger
from apf_tasks.tracking import run_logger, tracker
from apf_tasks.tracking.champion import CHALLENGER, champion_of, promote
from apf_tasks.tracking.past_runs import past_run
from apf_tasks.tracking.registry import APPROVAL_TAG, GATE_TAG, aliases_of

GATE_FILE = "gate.json"
Notify = Callable[[Event, str, str, int, GateResult], None]
"""(event, model, reason, version, result of the gate)"""
logger = logging.getLogger("apf")


def challenger_of(name: str) -> int:
    """The version that was registered last. Raises RegistryError."""
    aliases = aliases_of(name)
    if CHALLENGER not in aliases:
        raise RegistryError(f"registry {name}", "a challenger", "none", "Name a version.")
    return aliases[CHALLENGER]


def to_promote(name: str, version: int | None, why: str, dry_run: bool) -> tuple[int, Params]:
    """The version to judge (default: the challenger) and the params of the run that registered it.

    Raises RegistryError for word vectors, and ParamsError when the params ask for a reason and there is none.
    """
    number = challenger_of(name) if version is None else version
    params = past_run(f"models:/{name}/{number}").params
    if not isinstance(params, Params):
        do = "Word vectors are chosen by people: `apf promote --no-gate`."
        raise RegistryError(f"gate for {name}/{number}", "a model with a test", "word vectors", do)
    if params.gate.approve and not why and not dry_run:
        do = "Give a reason: the log records it and who gave it."
        raise ParamsError(f"promotion of {name}/{number}", "a reason, as gate.approve requires a person", "none", do)
    return number, params


def gate_and_promote(
    name: str,
    version: int,
    params: Params,
    why: str,
    dry_run: bool = False,
    ask: bool = False,
    notify: Notify = lambda *_: None,
) -> GateResult:
    """Evaluate, record the result, and promote on success; with `ask` wait for approval.

    Raises PromotionRefusedError.
    """
    champion = champion_of(name)
    if champion == version:
        raise PromotionRefusedError(
            f"gate for {name}/{version}", "another version than the champion", "the champion itself", "Nothing to do."
        )
    verdict = evaluate_challenger(name, version, champion, params)
    for rule in verdict.rules:
        logger.info("gate       %s: %s (%s)", rule.name, "passed" if rule.passed else "FAILED", rule.found)
    _record(name, version, verdict)
    why = why or "passed the gate"
    try:
        verdict.check()
        if not dry_run and not ask:
            promote(name, version, why, champion, verdict.found)
    except PromotionRefusedError as error:
        if not dry_run:
            notify("refused", name, str(error), version, verdict)
        raise
    if dry_run:
        return verdict
    if params.gate.approve:
        said = "waiting" if ask else why
        tracker.client().set_model_version_tag(name, str(version), APPROVAL_TAG, said[:5000])
    logger.info("promote    %s/%d %s", name, version, "waits for approval" if ask else "is the champion now")
    notify("waiting" if ask else "promoted", name, why, version, verdict)
    return verdict


def _record(name: str, version: int, verdict: GateResult) -> None:
    """What the gate found, on the version and in its run."""
    client: Any = tracker.client()
    failed = [rule.name for rule in verdict.rules if not rule.passed]
    against = verdict.champion or "no champion"
    said = f"passed against {against}" if not failed else f"failed against {against}: {', '.join(failed)}"
    client.set_model_version_tag(name, str(version), GATE_TAG, said)
    run_id = str(client.get_model_version(name, str(version)).run_id)
    run_logger.log_text(run_id, json.dumps(verdict.model_dump(mode="json"), indent=1), GATE_FILE)
