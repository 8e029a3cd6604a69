"""The inputs of the stages that take a bundle: their names and values are part of every stored key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apf_tasks.artifacts import EvaluationReport, Selection, TokenizedSplit
from apf_tasks.cache.journal import Pending, journal
from apf_tasks.cache.stage import Stage
from apf_tasks.inputs import EvaluationInputs, TrainingInputs
from apf_tasks.params.file import load_params
from apf_tasks.params.model import ModelParams
from apf_tasks.stages import evaluate, register, train_model, train_rung

EXAMPLE = Path(__file__).parent / "stage_inputs.json"
"""Inputs of stage calls as they were before bundles: a change here means that nobody's stored results are found."""
PARAMS = load_params("params/sentiment.yaml", {"train.seed": 7})


def handle(kind: type[Any], content: str) -> Any:
    return kind.model_construct(path=Path(content), fingerprint=content)


TRAIN, VALIDATION, TEST = (handle(TokenizedSplit, name) for name in ("train", "validation", "test"))
SELECTION, REPORT = handle(Selection, "selection"), handle(EvaluationReport, "report")
TRIAL = TrainingInputs(TRAIN, VALIDATION, PARAMS.model, PARAMS.family, PARAMS.train, PARAMS.runtime, PARAMS.metric)
TESTED = EvaluationInputs(SELECTION, TRAIN, TEST, PARAMS.model, PARAMS.family, PARAMS.test, PARAMS.runtime)
CALLS: dict[str, tuple[Stage[Any, Any], tuple[Any, ...]]] = {
    "train_model": (train_model, (TRIAL,)),
    "train_rung": (train_rung, (TRIAL, 30)),
    "evaluate": (evaluate, (TESTED,)),
    "register": (register, (SELECTION, REPORT, PARAMS.model, PARAMS.family, PARAMS.runtime, "reviews")),
}


def base_of(*args: Any) -> dict[str, str]:
    """An identity that finds the model among the arguments, as that of the stages does, and asks no package index."""
    return {"content of model.base": next(a.base for a in args if isinstance(a, ModelParams))}


@pytest.mark.parametrize("name", CALLS)
def test_a_bundle_gives_the_inputs_of_its_fields(name: str) -> None:
    stage, arguments = CALLS[name]
    inputs = replace(stage, identity=base_of).record(*arguments).inputs
    assert json.loads(json.dumps(inputs)) == json.loads(EXAMPLE.read_text(encoding="utf-8"))[name]


def test_a_plan_names_the_fields_of_a_bundle_and_sees_what_is_pending_in_it() -> None:
    pending: Any = Pending("tokenize")
    with journal(dry=True) as plan:
        train_model(TRIAL._replace(train=pending))
    (planned,) = plan.stage_runs
    assert planned.reason == "unless tokenize gives what it gave before"
    assert planned.arguments == TRIAL._replace(train=pending)._asdict()
