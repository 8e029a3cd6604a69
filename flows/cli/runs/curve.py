"""`apf curve`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from apf_tasks.artifacts import LearningCurve
from apf_tasks.cache.journal import PipelineRun
from apf_tasks.errors import ParamsError
from apf_tasks.params.experiment import Params
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.pipelines import first_trial
from apf_tasks.runs.experiments import load_experiment
from apf_tasks.search.trials import label
from flows.cli._app import AsJson, Overrides, ParamsFile, out


def curve(
    params: ParamsFile,
    overrides: Overrides = None,
    fractions: Annotated[
        str, typer.Option(help="Parts of the train split to train on, such as 0.1,0.2,0.5,1.")
    ] = "0.125,0.25,0.5,1",
    as_json: AsJson = False,
) -> None:
    """Estimate the gain from more labels: train on growing parts of train, score on validation, extrapolate."""
    from apf_tasks.params.file import parse_overrides
    from apf_tasks.pipelines import parse_fractions
    from flows.orchestration._console import console_logging
    from flows.orchestration.settings import warm_up_servers

    experiment, parts = load_experiment(params, overrides), parse_fractions(fractions)
    if isinstance(experiment, WordVectorParams):
        raise ParamsError("apf curve", "rows with training targets", "word vectors", "Name a params file of a family.")
    console_logging()
    warm_up_servers(training=True)
    from apf_tasks.cache.journal import journal
    from flows.learning_curve import learning_curve

    with journal() as done:
        learning_curve(params, parse_overrides(overrides or ()), parts)
    if as_json:
        print(json.dumps(curve_document(done), ensure_ascii=False))
    else:
        print_curve(out, done, experiment)


def curve_document(done: PipelineRun) -> dict[str, Any]:
    """The machine-readable outcome: `curve.json`, where it is, and what was computed."""
    curve = _curve_of(done)
    written: dict[str, Any] = json.loads((curve.path / "curve.json").read_text(encoding="utf-8"))
    stages = {f"{stage_run.stage} {stage_run.label}".strip(): stage_run.status for stage_run in done.stage_runs}
    return {"run_id": done.run_id, "stages": stages, "picture": str(curve.path / "curve.png"), "curve": written}


def print_curve(out: Console, done: PipelineRun, params: Params) -> None:
    """A row per part of train, the sentence about twice the rows, and where the picture is."""
    document = curve_document(done)
    written = document["curve"]
    trial, _ = first_trial(params)
    if trial:
        said = f"Trained with {label(trial)}, the first trial of the search."
        out.print(f"{said} A value behind the file's name replaces it.", markup=False)
    table = Table(
        *("train rows", "part", "steps", f"validation {written['metric']}", f"{written['confidence']:.0%} interval"),
        title="Learning curve",
        title_justify="left",
    )
    trainings = [stage_run for stage_run in done.stage_runs if stage_run.stage == "train_model"]
    for point, stage_run in zip(written["points"], trainings, strict=True):
        low, high = point["interval"]
        table.add_row(
            *(f"{point['rows']:,}", stage_run.label, f"{point['optimizer_steps']:,}"),
            *(f"{point['score']:.4f}", f"{low:.4f} – {high:.4f}"),
        )
    for column in (0, 2, 3):
        table.columns[column].justify = "right"
    out.print(table)
    out.print(f"[bold]{written['verdict']}[/]")
    out.print(written["note"], markup=False)
    out.print(f"The picture: {document['picture']}", soft_wrap=True, markup=False)
    reused = sum(stage_run.status == "reused" for stage_run in done.stage_runs)
    trained = sum(stage_run.status == "ran" for stage_run in trainings)
    did = "nothing was computed" if reused == len(done.stage_runs) else f"{trained} trainings ran"
    out.print(f"run {done.run_id} · {reused} of {len(done.stage_runs)} stages reused; {did}.")


def _curve_of(done: PipelineRun) -> LearningCurve:
    return next(v.handle for v in reversed(done.stage_runs) if isinstance(v.handle, LearningCurve))
