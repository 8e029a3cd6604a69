"""THE JOB: labelled rows in, a tested and registered model out."""

from __future__ import annotations

import sys
from typing import Any

from apf_tasks import tracking
from apf_tasks.artifacts import RegisteredModel, TokenizedSplit, TrainedModel
from apf_tasks.params import SPLIT_NAMES, Params
from apf_tasks.params_file import Trial, load_params, trials
from apf_tasks.recording import record
from apf_tasks.stage import journal
from apf_tasks.stages import evaluate, ingest, register, select, split_rows, tokenize, train_model
from flows.environment import prepare

prepare()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402


@flow(name="fine-tune")
def fine_tune(params: str, overrides: dict[str, Any] | None = None) -> RegisteredModel:
    """Fine-tune every parameter of a language model, choose on validation, report once on test.

    `params` names a file in params/ or a path; `overrides` are dotted, such as {"train.learning_rate": 3e-5}.
    """
    experiment = load_params(params, overrides or {})
    with tracking.pipeline_run(experiment) as run_id, journal() as done:
        done.run_id = run_id
        try:
            return pipeline(experiment)
        finally:
            record(run_id, experiment, done.visits)


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


if __name__ == "__main__":
    from flows.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
