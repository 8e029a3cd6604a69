"""`apf plan`: parse, plan, print."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from apf_tasks.device_memory import check_device
from apf_tasks.word_vectors.params import WordVectorParams, load_experiment

out = Console()


def plan(
    params: Annotated[str, typer.Argument(help="A params file, or the bare name of one in params/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: train.learning_rate=3e-5", show_default=False)
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Tokenize the rows, and run a few training steps.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Tokenize the rows, and predict the peak memory part by part.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="The same for this device: cpu, h100-80gb, rtx-4090-24gb, …", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what would be reused and what would run, and why. Runs nothing, unless it is to tell time and memory."""
    from apf_tasks.history import of_experiment
    from apf_tasks.stage import journal
    from apf_tasks.warm_start import meant_now, pinned
    from flows.pipeline import pipeline
    from flows.word_vector_pipeline import word_vector_pipeline

    wanted = check_device(device) if device else "cpu" if memory else None
    experiment = load_experiment(params, overrides or ())
    prepare = measure or wanted is not None
    with journal(dry=True, prepare=prepare) as book, of_experiment(experiment.name):
        if isinstance(experiment, WordVectorParams):
            word_vector_pipeline(experiment)
        else:
            pipeline(pinned(experiment, meant_now(experiment)))
    from flows.plan_output import estimated, plan_document, print_plan

    found = None if isinstance(experiment, WordVectorParams) else estimated(book.visits, experiment, measure, wanted)
    if as_json:
        print(json.dumps(plan_document(book, found)))
    else:
        print_plan(out, book, found, measure)
