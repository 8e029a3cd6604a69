"""`apf run`."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from apf_tasks.artifacts import RegisteredModel, TokenizedSplit
from apf_tasks.cache.journal import PipelineRun, journal
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import origin
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.pipelines import pipeline
from apf_tasks.promotion.warm_start import as_tag, pin_aliases, resolve_aliases
from apf_tasks.runs.experiments import load_experiment
from apf_tasks.runs.record import test_opened
from apf_tasks.runs.reused import reuse
from apf_tasks.tracking.lookup import run_page
from flows.cli._app import AsJson, Overrides, ParamsFile, out, print_page, run_line
from flows.cli.runs._scores import score_tables
from flows.cli.runs._search import search_table
from flows.cli.runs.word_vectors import vectors


def run(params: ParamsFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run an experiment: reuse cached results, compute the rest, register the chosen model."""
    from apf_tasks.params.file import parse_overrides
    from flows.orchestration._console import console_logging

    # every problem at once, before prefect is even imported
    experiment = load_experiment(params, overrides)
    if isinstance(experiment, WordVectorParams):
        vectors(params, overrides, as_json)
        return
    console_logging()
    done = _reused(experiment, params)
    if done is None:
        from flows.cli.runs._search import shown_live
        from flows.orchestration.settings import warm_up_servers

        warm_up_servers(training=True, workers=experiment.search.parallel > 1)
        from flows.fine_tune import fine_tune

        with journal() as done, shown_live(done, experiment):
            fine_tune(params, parse_overrides(overrides or ()))
    if as_json:
        print(json.dumps(run_document(done)))
    else:
        print_outcome(out, done)


def _reused(written: Params, params: str) -> PipelineRun | None:
    """The outcome when all of it is stored: neither Prefect nor MLflow is imported then."""
    resolved = resolve_aliases(written)
    return reuse(pin_aliases(written, resolved), pipeline, origin(params), as_tag(resolved))


def run_document(done: PipelineRun) -> dict[str, Any]:
    """The machine-readable outcome of a run."""
    handles = {stage_run.stage: stage_run.handle for stage_run in done.stage_runs}
    selection, report, registered = (handles[n].model_dump(mode="json") for n in ("select", "evaluate", "register"))  # type: ignore[union-attr]
    stages: dict[str, str] = {}
    for stage_run in done.stage_runs:
        ran = stage_run.status == "ran" or stages.get(stage_run.stage) == "ran"
        stages[stage_run.stage] = "ran" if ran else "reused"
        if stage_run.label:
            stages[f"{stage_run.stage} {stage_run.label}"] = stage_run.status
    tests = [v.handle for v in done.stage_runs if isinstance(v.handle, TokenizedSplit) and v.handle.name == "test"]
    return {
        "run_id": done.run_id or None,
        "registered_by": registered["run_id"],
        "model_uri": registered["model_uri"],
        "page": run_page(done.run_id or registered["run_id"]),
        "stages": stages,
        "seconds": {name: round(sum(v.seconds for v in done.stage_runs if v.stage == name), 3) for name in handles},
        "search": done.trials,
        "selection": {name: selection[name] for name in ("metric", "compared", "tie_break", "candidates")},
        "test": {name: report[name] for name in ("metric", "rows", "scores", "intervals", "baselines", "verdict")},
        "test_opened": test_opened(tests[-1]),
    }


def print_outcome(out: Console, done: PipelineRun) -> None:
    """Candidates, test scores beside the baselines, and what was reused."""
    document = run_document(done)
    selection, test = document["selection"], document["test"]
    out.print(search_table(done, selection, out))
    if selection["compared"] > 1:
        said = f"{selection['compared']} trials were compared on the same validation rows: the score of the best one is"
        out.print(f"{said} optimistic there. The test score is the estimate to use.", markup=False)
    for table in score_tables(test, out):
        out.print(table)
    out.print(f"The fine-tuned model is {test['verdict']}.", markup=False)
    if document["test_opened"] > 1:
        out.print(f"These test rows have scored {document['test_opened']} models by now; each use weakens the next.")
    ran = [v for v in done.stage_runs if v.status == "ran"]
    trained = sum(v.stage == "train_model" for v in ran)
    reused = len(done.stage_runs) - len(ran)
    did = f"{len(ran)} ran, {trained} of them trainings" if ran else "nothing was computed, nothing was trained"
    registered = next(v.handle for v in done.stage_runs if isinstance(v.handle, RegisteredModel))
    said = run_line(done.run_id, registered)
    out.print(f"{document['model_uri']} · {said} · {reused} of {len(done.stage_runs)} stages reused; {did}.")
    print_page(out, document["page"])
