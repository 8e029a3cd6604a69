"""The closing table of a run: test scores beside those of the baselines, whole on a terminal of any usual width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

UNLIMITED = 10_000
"""Columns of a screen on which everything fits."""


def score_tables(test: Mapping[str, Any], console: Console) -> Iterator[Table]:
    """One table; several, each with some of the baselines, where one would be cut at the width of the console."""
    remaining, title = list(test["baselines"]), f"Test, {test['rows']:,} rows"
    whole = _table(test, remaining, title, " ")
    if fits(whole, console):
        yield whole
        return
    interval = True
    while remaining or interval:
        counts = range(len(remaining), 0 if interval else 1, -1)
        shown = next((n for n in counts if fits(_table(test, remaining[:n], title, "\n", interval), console)), 0)
        shown = shown or int(not interval)  # one at least, or it would never end
        yield _table(test, remaining[:shown], title, "\n", interval)
        remaining, title, interval = remaining[shown:], "More baselines, same rows", False


def _table(test: Mapping[str, Any], baselines: Sequence[str], title: str, between: str, interval: bool = True) -> Table:
    """The scores with some of the baselines; `between` stands between the words of a heading."""
    table = Table("score", "fine-tuned", title=title, title_justify="left")
    for heading in (["interval"] if interval else []) + [name.replace("_", between) for name in baselines]:
        table.add_column(heading)
    for name, value in test["scores"].items():
        low, high = test["intervals"][name]
        others = [f"{test['baselines'][baseline][name]:.4f}" for baseline in baselines]
        table.add_row(name, f"[bold]{value:.4f}[/]", *([f"{low:.4f} – {high:.4f}"] if interval else []), *others)
    return table


def fits(table: Table, console: Console) -> bool:
    """Whether nothing of it would be cut or folded."""
    return console.measure(table, options=console.options.update(max_width=UNLIMITED)).maximum <= console.width
