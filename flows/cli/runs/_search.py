"""The trials of a search while it runs, as a table that stays up to date on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from apf_tasks.search.report import outcome

if TYPE_CHECKING:
    from apf_tasks.cache.journal import PipelineRun

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from apf_tasks.cache.journal import PipelineRun
from apf_tasks.params.experiment import Params
from apf_tasks.runtime.progress import ProgressUpdate, listening
from flows.cli.runs._scores import fits

ROWS = 20
"""Trials shown: more do not fit a screen."""


@contextmanager
def shown_live(done: PipelineRun, params: Params) -> Iterator[None]:
    """Within the block the trials are shown, where there is a terminal and more than one trial."""
    if params.search.count == 1 or not sys.stderr.isatty():
        yield
        return
    view = LiveTrials(done, params)
    with listening(view.hear), Live(view, console=Console(stderr=True), refresh_per_second=2, transient=True):
        yield


class LiveTrials:
    """What there is to see of a search under way."""

    def __init__(self, done: PipelineRun, params: Params) -> None:
        self._done, self._params = done, params
        self._moments: dict[str, ProgressUpdate] = {}
        self._last: ProgressUpdate | None = None

    def hear(self, update: ProgressUpdate) -> None:
        """How far a piece of work is: the training of a trial, or something between trainings."""
        self._moments[update.label] = self._last = update

    def __rich__(self) -> Table | str:
        """The table; before there are trials, what is under way."""
        trials, search = list(self._done.trials), self._params.search
        if not trials:
            return str(self._last or "")
        known = sum(trial["score"] is not None for trial in trials)
        title = f"Search · {known} of {search.count} trials compared{self._time_left(trials)}"
        table = Table(
            "trial", "rung", f"validation {self._params.metric}", "steps", "left", title=title, title_justify="left"
        )
        for trial in trials[:ROWS]:
            table.add_row(*self._row(trial))
        if len(trials) > ROWS:
            table.add_row(f"… {len(trials) - ROWS} more")
        labels = {f"train {trial['label']}" for trial in trials}
        if self._last and self._last.label not in labels and self._last.done < self._last.total:
            table.caption, table.caption_justify = str(self._last), "left"
        return table

    def _row(self, trial: Mapping[str, Any]) -> tuple[str | Text, ...]:
        score = "" if trial["score"] is None else f"{trial['score']:.4f}"
        rungs = len(trial["path"])
        rung = "end" if trial["step"] and trial["step"] >= trial["steps"] else str(rungs or "")
        update = self._moments.get(f"train {trial['label']}")
        name = Text(trial["label"])
        if trial["failure"]:
            return name, rung, score, "failed", ""
        if update is None or update.done >= update.total or update.total <= trial["step"]:
            steps = f"{trial['step']}/{trial['steps']}" if trial["steps"] else ""
            return name, rung, score, steps, ""
        left = "" if update.seconds_left is None else f"{update.seconds_left:.0f} s"
        return Text(trial["label"], style="bold"), rung, score, f"{update.done}/{update.total}", left

    def _time_left(self, trials: list[dict[str, Any]]) -> str:
        """Of the whole search, at the pace of the trainings so far."""
        steps, seconds = (sum(trial[name] for trial in trials) for name in ("step", "seconds"))
        running = (self._moments.get(f"train {trial['label']}") for trial in trials)
        begun = sum(max(0, m.done - t["step"]) for m, t in zip(running, trials, strict=True) if m)
        to_come = self._done.expected_steps - steps - begun
        if not steps or to_come <= 0:
            return ""
        minutes = to_come * seconds / steps / self._params.search.parallel / 60
        return f" · about {minutes:.0f} min left" if minutes >= 1 else " · less than a minute left"


ROWS = 20
"""Trials shown; all of them are in the run's search/trials.csv."""


def search_table(done: PipelineRun, selection: Mapping[str, Any], console: Console) -> Table:
    """The trials, the chosen one first; on a narrow terminal the interval stands under the score."""
    wide = _search_table(done, selection, Column("trial"), of_its_own=True)
    if fits(wide, console):
        return wide
    words = [word for trial in done.trials for word in trial["label"].split()]
    trials = Column("trial", min_width=min(32, max(map(len, words), default=0)))  # a line of its own for each value
    return _search_table(done, selection, trials)


def _search_table(done: PipelineRun, selection: Mapping[str, Any], trials: Column, of_its_own: bool = False) -> Table:
    """With the interval in a column of its own, or under the score."""
    candidates = selection["candidates"]
    title = f"Search, {len(done.trials)} trials" if len(done.trials) > 1 else "Selection"
    under = "" if of_its_own else "\nand interval"
    score_column = Column(f"validation\n{selection['metric']}{under}", no_wrap=True)
    columns: list[Column | str] = [trials, "steps", score_column, *(["interval"] if of_its_own else []), ""]
    table = Table(*columns, title=title, title_justify="left")
    intervals = {candidate["run_id"]: candidate["interval"] for candidate in candidates}
    chosen = candidates[0]["run_id"]
    ranked = sorted(done.trials, key=lambda trial: chosen not in trial["run_ids"])
    for trial in ranked[:ROWS]:
        low, high = next((intervals[run] for run in trial["run_ids"] if run in intervals), (None, None))
        score = "" if trial["score"] is None else f"{trial['score']:.4f}"
        interval = "" if low is None else f"{low:.4f} – {high:.4f}"
        scored = [score, interval] if of_its_own else [f"{score}\n{interval}".strip()]
        steps = f"{trial['step']}/{trial['steps']}" if trial["steps"] else ""
        said = outcome(trial, chosen).partition("\n")[0]
        table.add_row(trial["label"] or "train as written", steps, *scored, said)
    if len(ranked) > ROWS:
        table.add_row(f"… {len(ranked) - ROWS} more", *[""] * (len(columns) - 2), "in search/trials.csv")
    return table
