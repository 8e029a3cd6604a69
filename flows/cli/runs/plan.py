"""`apf plan`: parse, plan, print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.cache.journal import PipelineRun, StageRun
from apf_tasks.params.experiment import Params
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.planning.devices import check_device, size
from apf_tasks.planning.estimates import Estimate, estimate
from apf_tasks.runs.experiments import load_experiment
from flows.cli._app import AsJson, Overrides, ParamsFile, out

if TYPE_CHECKING:
    from apf_tasks.planning.measure import Speed
    from flows.cli.runs._memory import Planned


def plan(
    params: ParamsFile,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Tokenize the rows, and run a few training steps.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Tokenize the rows, and predict the peak memory part by part.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="The same for this device: cpu, h100-80gb, rtx-4090-24gb, …", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what would be reused and what would run, and why. Runs stages only to estimate time and memory."""
    from apf_tasks.pipelines import pipeline_of_either_kind
    from apf_tasks.planning.plan import plan_run

    wanted = check_device(device) if device else "cpu" if memory else None
    experiment = load_experiment(params, overrides)
    book = plan_run(experiment, pipeline_of_either_kind, prepare=measure or wanted is not None)
    found = (
        None
        if isinstance(experiment, WordVectorParams)
        else estimate_plan(book.stage_runs, experiment, measure, wanted)
    )
    if as_json:
        print(json.dumps(plan_document(book, found)))
    else:
        print_plan(out, book, found, measure)
        if found is None and (measure or wanted) and not isinstance(experiment, WordVectorParams):
            out.print("Nothing would be trained, so no time is measured and no memory predicted.")


class Estimated(NamedTuple):
    """An estimate, and the speed where it was measured."""

    estimate: Estimate
    speed: Speed | None
    memory: Planned | None = None
    """The memory part by part, if it was asked for."""

    @property
    def seconds(self) -> list[float] | None:
        """Of each training."""
        return None if self.speed is None else [self.speed.seconds(t) for t in self.estimate.trainings]


def estimate_plan(
    stage_runs: Sequence[StageRun], params: Params, measure: bool, device: str | None = None
) -> Estimated | None:
    """What the trainings of a plan would take; None when none would run. Measures only when asked, and when it can.

    With a `device`, also the peak memory there.
    """
    found = estimate(stage_runs, params)
    if found is None:
        return None
    planned = None
    if device is not None and can_measure(found):
        from flows.cli.runs._memory import plan_memory  # torch: seconds

        planned = plan_memory(found.trainings, device)
    if not measure or not can_measure(found):
        return Estimated(found, None, planned)
    from apf_tasks.planning.measure import measure_speed

    return Estimated(found, measure_speed(found.trainings[0]), planned)


def can_measure(found: Estimate) -> bool:
    """Whether the rows are tokenized already."""
    given = found.trainings[0].arguments
    return isinstance(given["train"], TokenizedSplit) and isinstance(given["validation"], TokenizedSplit)


def plan_document(pipeline: PipelineRun, found: Estimated | None) -> dict[str, Any]:
    """The plan for scripts."""
    stage_runs = [
        {name: getattr(v, name) for name in ("stage", "label", "status", "reason")} for v in pipeline.stage_runs
    ]
    return {"stages": stage_runs, "estimate": _document(found)}


def print_plan(out: Console, pipeline: PipelineRun, found: Estimated | None, measure: bool) -> None:
    """The stages as a table; a line each for steps, time, memory and disk; then the warnings."""
    table = Table("stage", "call", "", "why", box=None, pad_edge=False)
    for stage_run in pipeline.stage_runs:
        style = "yellow" if stage_run.status == "runs" else "green"
        why = stage_run.handle.describe() if stage_run.handle else stage_run.reason
        table.add_row(stage_run.stage, stage_run.label, f"[{style}]{stage_run.status}[/]", escape(why))
    out.print(table)
    count = Counter(stage_run.status for stage_run in pipeline.stage_runs)
    now = f", {count['ran']} ran now" if count["ran"] else ""
    stages = f"{count['reused']} stage{'s' if count['reused'] != 1 else ''}"
    out.print(f"{stages} reused{now}, {count['runs']} would run.")
    if found is None:
        return
    for line in (_steps(found.estimate), _time(found, measure), _memory(found), _disk(found.estimate)):
        out.print(line, markup=False, highlight=False)
    if found.memory is not None:
        from flows.cli.runs._memory import print_memory

        print_memory(out, found.memory)
    for warning in found.estimate.warnings:
        out.print(f"Warning: {warning}", style="yellow", markup=False, highlight=False)


def _document(found: Estimated | None) -> dict[str, Any] | None:
    if found is None:
        return None
    known, speed = found.estimate, found.speed
    return {
        "trainings": [{"label": t.label, "steps": t.steps, "exact": t.exact} for t in known.trainings],
        "steps": known.steps,
        "seconds": found.seconds,
        "tokens_per_second": None if speed is None else speed.tokens_per_second,
        "parameters": known.parameters,
        "trained_bytes": known.trained_bytes,
        "memory": None if found.memory is None else found.memory.document(),
        "peak_gib": None if speed is None else speed.peak_gib,
        "kept_bytes_per_training": known.kept_bytes,
        "most_bytes": known.most_bytes,
        "free_bytes": known.free_bytes,
        "warnings": list(known.warnings),
    }


def _steps(known: Estimate) -> str:
    count = len(known.trainings)
    trainings = f"Training: {count} training{'s' if count > 1 else ''}"
    if known.steps is None:
        return f"{trainings}; with --measure the rows are split and tokenized to count the steps."
    each = sorted({training.steps or 0 for training in known.trainings})
    steps = f"{each[0]:,}" if len(each) == 1 else f"{each[0]:,} to {each[-1]:,}"
    about = "" if all(training.exact for training in known.trainings) else "about "
    in_all = f", {known.steps:,} in all" if count > 1 else ""
    return f"{trainings} of {about}{steps} optimizer steps{in_all}."


def _time(found: Estimated, measure: bool) -> str:
    if found.speed is None or found.seconds is None:
        if not measure:
            return "Time: not measured; with --measure a few steps are run to estimate it."
        return "Time: not known before the rows are tokenized, so nothing was measured."
    each, speed = sorted(found.seconds), found.speed
    per = _minutes(each[0]) if each[-1] < 1.05 * each[0] else f"{_minutes(each[0])} to {_minutes(each[-1])}"
    in_all = f" each, {_minutes(sum(each))} in all" if len(each) > 1 else ""
    validations = max(t.validations or 0 for t in found.estimate.trainings)
    scored = f"{validations} validations of {speed.validation_seconds:,.1f} s"
    how = f"{speed.steps} steps measured: {speed.tokens_per_second:,.0f} tokens/s; {scored}"
    return f"Time: about {per}{in_all} ({how})."


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _memory(found: Estimated) -> str:
    known = found.estimate.trained_bytes
    if found.speed is not None:
        return f"Memory: {found.speed.peak_gib:.1f} GiB at the peak of these steps, libraries included."
    if found.memory is not None:
        return f"Memory: {size(found.memory.memory.total)} predicted for {found.memory.device}; below, part by part."
    if known is None:
        return "Memory: unknown until the model is downloaded or built."
    parts = f"{size(known)} for {found.estimate.memory_parts}"
    return f"Memory: {parts}; activations and libraries are extra: use --memory."


def _disk(known: Estimate) -> str:
    if known.parameters is None or known.kept_bytes is None or known.most_bytes is None:
        return "Disk: unknown until the model is downloaded or built."
    kept, most, free = (size(count) for count in (known.kept_bytes, known.most_bytes, known.free_bytes))
    per = f"{kept} per training for {known.parameters:,} parameters"
    return f"Disk: about {per}, up to {most} while they run; {free} free."
