"""A challenger and the champion on the test rows of today and of then, and what the gate says."""

from __future__ import annotations

import logging

from apf_tasks.artifacts import RawData, Split, VersionScores
from apf_tasks.errors import RegistryError
from apf_tasks.family import get_family
from apf_tasks.params.data import DataParams
from apf_tasks.params.experiment import Params
from apf_tasks.params.family import FamilyParams
from apf_tasks.promotion._forgetting import VersionPair, general_family, old_and_new, on_general_text, rules
from apf_tasks.promotion.champion_rows import champion_split
from apf_tasks.promotion.gate import GateCheck, GateResult, SliceComparison, check_scores, latency_rule, serving_rule
from apf_tasks.serving.server import serving_problem
from apf_tasks.stages import contend, ingest, split_rows

logger = logging.getLogger("apf")


def evaluate_challenger(name: str, version: int, champion: int | None, params: Params) -> GateResult:
    """Score both on the same test rows, and ask every rule of the params."""
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    uris = [f"models:/{name}/{number}" for number in (version, champion) if number is not None]
    contenders = [_contend(uri, split, params.family, params) for uri in uris]
    verdict = check_scores(contenders[0], contenders[1] if champion is not None else None, params)
    parts = _trade_off(name, uris, VersionPair(*contenders), split, params) if champion is not None else []
    asked = [*rules(parts, params.gate, get_family(params.family).sign(params.metric)), *_running(uris, split, params)]
    return verdict.model_copy(update={"rules": (*verdict.rules, *asked), "trade_off": tuple(parts)})


def _trade_off(
    name: str, uris: list[str], on_today: VersionPair, today: Split, params: Params
) -> list[SliceComparison]:
    """What the challenger has won and lost; the champion's rows may be those of today, or out of reach."""
    parts = []
    try:
        then = champion_split(name)
    except RegistryError as error:
        if params.gate.forgetting is not None:
            raise
        logger.info("gate       the champion's own test rows are not used: %s", error.found)
    else:
        on_then = on_today if then.fingerprint == today.fingerprint else _both(uris, then, params.family, params)
        parts += old_and_new(then, today, on_then, on_today, params)
    if params.gate.general_text is not None:
        family = general_family(params.family)
        text = ingest(DataParams(source=params.gate.general_text, format="text"), family)
        parts += on_general_text(_both(uris, text, family, params), params)
    return parts


def _both(uris: list[str], rows_of: Split | RawData, family: FamilyParams, params: Params) -> VersionPair:
    challenger, champion = (_contend(uri, rows_of, family, params) for uri in uris)
    return VersionPair(challenger, champion)


def _contend(uri: str, rows_of: Split | RawData, family: FamilyParams, params: Params) -> VersionScores:
    return contend.labelled(uri.removeprefix("models:/"))(uri, rows_of, family, params.runtime)


def _running(uris: list[str], split: Split, params: Params) -> list[GateCheck]:
    """The rules for which the models have to run."""
    found = []
    if params.gate.latency_growth is not None and len(uris) > 1:
        from apf_tasks.evaluation.registered.scores import seconds_per_row

        found.append(latency_rule(seconds_per_row(uris, split, params.runtime), params.gate))
    if params.gate.serves:
        found.append(serving_rule(serving_problem(uris[0], split, params)))
    return found
