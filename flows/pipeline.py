"""The main job as a table of contents. Knows nothing of Prefect, so that a plan of it answers at once."""

from __future__ import annotations

from apf_tasks.artifacts import RegisteredModel, Split, TokenizedSplit, TrainedModel
from apf_tasks.params import SPLIT_NAMES, ModelParams, Params
from apf_tasks.params_file import Trial, trials
from apf_tasks.stages import (
    as_model_params,
    build_base,
    evaluate,
    ingest,
    register,
    select,
    split_rows,
    tokenize,
    train_model,
)


def pipeline(params: Params) -> RegisteredModel:
    """The stages in order. Under a dry journal the same lines are the plan."""
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    base = base_model(split, params)
    train, validation, test = (tokenize.labelled(n)(split, n, base, params.family) for n in SPLIT_NAMES)
    candidates = search(train, validation, base, params)
    selection = select(candidates, params.family, params.test)
    report = evaluate(selection, train, test, base, params.family, params.test, params.runtime)
    return register(selection, report, base, params.family, params.runtime, params.model_name)


def base_model(split: Split, params: Params) -> ModelParams:
    """The model to start from: as the params name it, or built from scratch with a tokenizer of the train split."""
    if params.model.init == "pretrained":
        return params.model
    return as_model_params(build_base(split, params.model, params.tokenizer, params.family), params.model)


def search(
    train: TokenizedSplit, validation: TokenizedSplit, base: ModelParams, params: Params
) -> tuple[TrainedModel, ...]:
    """One training per combination of the search space, on train and validation alone."""
    return tuple(
        train_model.labelled(label(trial))(
            train, validation, base, params.family, section, params.runtime, params.metric
        )
        for trial, section in trials(params)
    )


def label(trial: Trial) -> str:
    """How a trial is called in front of people: `learning_rate=3e-05`."""
    return " ".join(f"{name.removeprefix('train.')}={value}" for name, value in trial.items())
