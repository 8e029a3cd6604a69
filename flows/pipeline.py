"""The main job as a table of contents. Knows nothing of Prefect, so that a plan of it answers at once."""

from __future__ import annotations

from apf_tasks.artifacts import RegisteredModel, TokenizedSplit, TrainedModel
from apf_tasks.params import SPLIT_NAMES, Params
from apf_tasks.params_file import Trial, trials
from apf_tasks.stages import evaluate, ingest, register, select, split_rows, tokenize, train_model


def pipeline(params: Params) -> RegisteredModel:
    """The stages in order. Under a dry journal the same lines are the plan."""
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    train, validation, test = (tokenize.labelled(n)(split, n, params.model, params.family) for n in SPLIT_NAMES)
    candidates = search(train, validation, params)
    selection = select(candidates, params.family, params.test)
    report = evaluate(selection, train, test, params.model, params.family, params.test, params.runtime)
    return register(selection, report, params.model, params.family, params.runtime, params.model_name)


def search(train: TokenizedSplit, validation: TokenizedSplit, params: Params) -> tuple[TrainedModel, ...]:
    """One training per combination of the search space, on train and validation alone."""
    return tuple(
        train_model.labelled(label(trial))(
            train, validation, params.model, params.family, section, params.runtime, params.metric
        )
        for trial, section in trials(params)
    )


def label(trial: Trial) -> str:
    """How a trial is called in front of people: `learning_rate=3e-05`."""
    return " ".join(f"{name.removeprefix('train.')}={value}" for name, value in trial.items())
