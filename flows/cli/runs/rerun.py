"""`apf rerun`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from apf_tasks.runs.differences import Difference
from apf_tasks.runs.rerun import RerunResult, same_number
from apf_tasks.tracking.past_runs import PastRun
from flows.cli._app import AsJson, out


def rerun(
    run: Annotated[str, typer.Argument(help="A run id, a unique prefix of one, or models:/NAME@ALIAS.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything again, in a temporary store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Repeat a past run from its record, report what has changed since, and compare the scores."""
    from apf_tasks.runs.differences import in_original_folder, provenance_diff
    from apf_tasks.runs.reused import deliver_outbox
    from apf_tasks.tracking.past_runs import past_run
    from flows.orchestration._console import console_logging
    from flows.orchestration.settings import warm_up_servers

    deliver_outbox()
    past = past_run(run)
    with in_original_folder(past.provenance, past.params) as elsewhere:
        lines = provenance_diff(past.provenance, past.params)
        if not as_json:
            print_then_and_now(out, past, elsewhere, lines)
        console_logging()
        warm_up_servers()
        from flows.rerun import repeat

        repeated = repeat(past, fresh)
    if as_json:
        print(json.dumps(rerun_document(repeated, lines), ensure_ascii=False))
    else:
        print_rerun(out, repeated)


NOTHING = "–"


def print_then_and_now(out: Console, past: PastRun, elsewhere: Path | None, lines: Sequence[Difference]) -> None:
    """What the recorded run depended on, beside what is here today."""
    made = f"run {past.short} of {past.started:%Y-%m-%d %H:%M}, from {past.provenance.params_file}"
    out.print(f"{past.params.name}: {made}", markup=False, highlight=False)
    if elsewhere is not None:
        out.print(f"Its files are not here: it is repeated in {elsewhere}, where it was run.", markup=False)
    table = Table("", "recorded", "today", box=None, pad_edge=False)
    for line in lines:
        today = "[green]same[/]" if line.same else f"[yellow]{escape(line.now)}[/]"
        table.add_row(escape(line.what), escape(line.then), today)
    out.print(table, "")


def print_rerun(out: Console, repeated: RerunResult) -> None:
    """The scores beside the recorded ones, what was computed for them, and one sentence."""
    table = Table("score", "recorded", "now", "difference", box=None, pad_edge=False)
    for name, (then, now) in repeated.scores.items():
        if not name.endswith(("_low", "_high")):
            shown = [NOTHING if value is None else f"{value:.6g}" for value in (then, now)]
            table.add_row(escape(name), *shown, _difference(then, now))
    if repeated.scores:
        out.print(table, "")
    style = "green" if repeated.equal else "yellow"
    out.print(f"[bold {style}]{escape(sentence(repeated))}[/]")
    stage_runs = repeated.done.stage_runs
    reused = sum(stage_run.status == "reused" for stage_run in stage_runs)
    where = "in a store that is deleted again" if repeated.fresh else f"run {repeated.done.run_id}"
    out.print(
        f"{reused} of {len(stage_runs)} stages reused, {len(stage_runs) - reused} computed, {where}.", highlight=False
    )


def _difference(then: float | None, now: float | None) -> str:
    if then is None or now is None:
        return NOTHING
    return "[green]equal[/]" if same_number(then, now) else f"[yellow]{now - then:+.3g}[/]"


def sentence(repeated: RerunResult) -> str:
    """Whether the repetition gave what was recorded."""
    if not repeated.past.metrics:
        return f"The recorded run has no scores to compare with: it is {repeated.past.status.lower()}."
    alike, count = repeated.alike, len(repeated.scores)
    if repeated.equal:
        rows = f" and {alike.rows:,} predicted rows" if alike else ""
        return f"Equal: all {count} numbers{rows} are the same to the last bit."
    other = sum(not same_number(then, now) for then, now in repeated.scores.values())
    rows = f"; {alike.predicted:,} of {alike.rows:,} predictions are the same" if alike else ""
    return f"Different: {other} of {count} numbers{rows}."


def rerun_document(repeated: RerunResult, lines: Sequence[Difference]) -> dict[str, Any]:
    """All of it for scripts."""
    return {
        "rerun_of": repeated.past.run_id,
        "run_id": None if repeated.fresh else repeated.done.run_id,
        "fresh": repeated.fresh,
        "today": [{"what": line.what, "recorded": line.then, "now": line.now, "same": line.same} for line in lines],
        "stages": {f"{v.stage} {v.label}".strip(): v.status for v in repeated.done.stage_runs},
        "scores": {name: {"recorded": then, "now": now} for name, (then, now) in repeated.scores.items()},
        "predictions": repeated.alike._asdict() if repeated.alike else None,
        "equal": repeated.equal,
    }
