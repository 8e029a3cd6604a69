"""`apf compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from apf_tasks.family import get_family
from apf_tasks.params.word_vectors import WordVectorParams
from flows.cli._app import AsJson, out

if TYPE_CHECKING:
    from apf_tasks.runs.compare import RunComparison
    from apf_tasks.tracking.past_runs import ValidationPoint


def compare(
    runs: Annotated[list[str], typer.Argument(help="Run ids, unique prefixes of them, or models:/NAME@ALIAS.")],
    picture: Annotated[Path, typer.Option("-o", "--output", help="Where to write the picture.")] = Path("compare.png"),
    metric: Annotated[str | None, typer.Option(help="Compare by this metric instead of the deciding one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare past runs, and report which is reliably better on the same test rows."""
    from apf_tasks.runs.compare import compare_runs, document

    compared = compare_runs(runs, metric, picture)
    if as_json:
        print(json.dumps(document(compared), ensure_ascii=False))
    else:
        print_compared(out, compared)


BARS = "▁▂▃▄▅▆▇█"


MOST_BARS = 30


NOTHING = "–"


def print_compared(out: Console, compared: RunComparison) -> None:
    """Runs, params that differ, test scores, validation curves, and one sentence for every two runs."""
    _print_runs(out, compared)
    _print_params(out, compared)
    _print_scores(out, compared)
    _print_curves(out, compared)
    comparison = compared.comparison
    out.print(_rows(compared))
    for pair in comparison.pairs:
        style = "bold green" if pair.reliable else "bold"
        out.print(
            f"[{style}]{escape(str(pair))}[/] Same prediction: {pair.alike:,} of {comparison.shared_rows:,} rows."
        )
    if len(comparison.pairs) > 1:
        out.print(f"All {len(comparison.pairs)} intervals hold simultaneously with that confidence.")
    out.print(f"The picture: {compared.picture}", markup=False, highlight=False, soft_wrap=True)


def _table(*columns: str, title: str = "") -> Table:
    folded = [Column(name, overflow="fold") for name in columns]  # a name that is cut cannot be copied
    return Table(*folded, title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)


def _print_runs(out: Console, compared: RunComparison) -> None:
    table = _table("", "experiment", "run", "started", "params file")
    for letter, run in compared.runs.items():
        table.add_row(
            f"[bold]{letter}[/]",
            escape(run.params.name),
            run.short,
            f"{run.started:%Y-%m-%d %H:%M}",
            escape(run.provenance.params_file),
        )
    out.print(table, "")


def _print_params(out: Console, compared: RunComparison) -> None:
    differing = compared.differing()
    if not differing:
        out.print("No params differ.\n")
        return
    table = _table("param", *compared.runs, title="Params that differ")
    for name, values in differing.items():
        table.add_row(escape(name), *(escape(value) if value is not None else NOTHING for value in values))
    out.print(table, "")


def _print_scores(out: Console, compared: RunComparison) -> None:
    scores, rows = compared.scores(), compared.comparison.rows
    table = _table("score", *(f"{letter}, {rows[letter]:,} rows" for letter in compared.runs), title="Test")
    names = dict.fromkeys(name for found in scores.values() for name in found)
    for name in names:
        cells = [found.get(name) for found in scores.values()]
        shown = [f"[bold]{c[0]:.4f}[/] \\[{c[1]:.4f}, {c[2]:.4f}]" if c else NOTHING for c in cells]
        table.add_row(f"{name} *" if name == compared.comparison.metric else name, *shown)
    out.print(table, "")


def _print_curves(out: Console, compared: RunComparison) -> None:
    metric = compared.comparison.metric
    title = f"Validation {metric} of the chosen trials"
    table = _table("", "chosen", "first", "best", "at epoch", "last", "of", "curve", title=title)
    params = compared.runs["A"].params
    assert not isinstance(params, WordVectorParams)
    sign = get_family(params.family).sign(metric)
    low = min((p.score for points in compared.curves.values() for p in points), default=0.0)
    high = max((p.score for points in compared.curves.values() for p in points), default=1.0)
    for letter, points in compared.curves.items():
        chosen = escape(compared.trial(letter)) or "train as written"
        if not points:
            table.add_row(f"[bold]{letter}[/]", chosen, *[NOTHING] * 5, "its trial is not in this MLflow server")
            continue
        best = max(points, key=lambda p: sign * p.score)
        numbers = (f"{points[0].score:.4f}", f"{best.score:.4f}", f"{best.epoch:.3g}", f"{points[-1].score:.4f}")
        table.add_row(f"[bold]{letter}[/]", chosen, *numbers, f"{points[-1].epoch:.3g}", _curve(points, low, high))
    out.print(table, "")


def _curve(points: Sequence[ValidationPoint], low: float, high: float) -> str:
    """Validations as bars between the lowest and the highest score of all runs; long curves lose points in between."""
    step = max(1, -(-len(points) // MOST_BARS))
    shown = points[::-1][::step][::-1]  # the last one stays
    place = [(p.score - low) / (high - low) if high > low else 0.5 for p in shown]
    return "".join(BARS[min(len(BARS) - 1, int(max(0.0, p) * len(BARS)))] for p in place)


def _rows(compared: RunComparison) -> str:
    """Which test rows were compared on."""
    comparison = compared.comparison
    if set(comparison.rows.values()) == {comparison.shared_rows}:
        return f"Compared on the same {comparison.shared_rows:,} test rows:"
    own = ", ".join(f"{letter} has {count:,}" for letter, count in comparison.rows.items())
    changed = f", {comparison.changed_rows:,} with another content left out" if comparison.changed_rows else ""
    scores = ", ".join(f"{letter} {found[comparison.metric]:.4f}" for letter, found in comparison.scores.items())
    return (
        f"[yellow]The test rows are not the same[/] ({own}{changed}). "
        f"Compared on the {comparison.shared_rows:,} that all have ({comparison.metric} {scores}):"
    )
