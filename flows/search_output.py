"""How the trials of a search are shown in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from apf_tasks.search_report import outcome

if TYPE_CHECKING:
    from apf_tasks.stage import Journal

ROWS = 20
"""Trials shown; all of them are in the run's search/trials.csv."""


def search_table(done: Journal, selection: Mapping[str, Any]) -> Table:
    """The trials, the chosen one first."""
    metric, candidates = selection["metric"], selection["candidates"]
    title = f"Search, {len(done.trials)} trials" if len(done.trials) > 1 else "Selection"
    words = [word for trial in done.trials for word in trial["label"].split()]
    trials = Column("trial", min_width=min(32, max(map(len, words), default=0)))  # a line of its own for each value
    table = Table(trials, "steps", f"validation {metric}", "interval", "", title=title, title_justify="left")
    intervals = {candidate["run_id"]: candidate["interval"] for candidate in candidates}
    chosen = candidates[0]["run_id"]
    ranked = sorted(done.trials, key=lambda trial: chosen not in trial["run_ids"])
    for trial in ranked[:ROWS]:
        low, high = next((intervals[run] for run in trial["run_ids"] if run in intervals), (None, None))
        score = "" if trial["score"] is None else f"{trial['score']:.4f}"
        interval = "" if low is None else f"{low:.4f} – {high:.4f}"
        steps = f"{trial['step']}/{trial['steps']}" if trial["steps"] else ""
        said = outcome(trial, chosen).partition("\n")[0]
        table.add_row(trial["label"] or "train as written", steps, score, interval, said)
    if len(ranked) > ROWS:
        table.add_row(f"… {len(ranked) - ROWS} more", "", "", "", "in search/trials.csv")
    return table
