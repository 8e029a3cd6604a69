"""A challenger and the champion on the test rows of today, and what the gate says."""

from __future__ import annotations

from apf_tasks.artifacts import Split
from apf_tasks.gate import Rule, Verdict, judge, latency_rule, serving_rule
from apf_tasks.params import Params
from apf_tasks.stages import contend, ingest, split_rows
from flows.serving import serving_problem


def judged(name: str, version: int, champion: int | None, params: Params) -> Verdict:
    """Score both on the same test rows, and ask every rule of the params."""
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    uris = [f"models:/{name}/{number}" for number in (version, champion) if number is not None]
    contenders = [contend(uri, split, params.family, params.runtime) for uri in uris]
    verdict = judge(contenders[0], contenders[1] if champion is not None else None, params)
    return verdict.model_copy(update={"rules": verdict.rules + tuple(_running(uris, split, params))})


def _running(uris: list[str], split: Split, params: Params) -> list[Rule]:
    """The rules for which the models have to run."""
    rules = []
    if params.gate.latency_growth is not None and len(uris) > 1:
        from apf_tasks.contender import seconds_per_row

        rules.append(latency_rule(seconds_per_row(uris, split, params.runtime), params.gate))
    if params.gate.serves:
        rules.append(serving_rule(serving_problem(uris[0], split, params)))
    return rules
