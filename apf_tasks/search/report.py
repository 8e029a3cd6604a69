"""What a search found, for people: a table of its trials, and a picture of score against each parameter and steps."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE, PICTURE = "trials.csv", "search.png"
LOG_RATIO = 8
"""Numbers that span more than this factor are drawn on a logarithmic axis."""
COLUMNS = 3
FEW_VALUES = 5
"""So few different numbers are written on the axis as they are."""

Trials = Sequence[Mapping[str, Any]]
"""As the search notes them in the journal."""


def outcome(trial: Mapping[str, Any], chosen_run: str) -> str:
    """What became of a trial, in words."""
    if trial["failure"]:
        return f"failed: {trial['failure']}"
    if chosen_run in trial["run_ids"]:
        return "chosen"
    return "trained to the end" if trial["step"] >= trial["steps"] else "stopped there"


def write_table(trials: Trials, chosen_run: str, path: Path) -> None:
    """One line per trial: its values, how far it came, its score."""
    names = list(dict.fromkeys(name for trial in trials for name in trial["trial"]))
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, "step", "steps", "score", "seconds", "runs", "outcome"])
        for trial in trials:
            values = [trial["trial"].get(name, "") for name in names]
            reached = [trial[name] for name in ("step", "steps", "score", "seconds")]
            rows.writerow([*values, *reached, " ".join(trial["run_ids"]), outcome(trial, chosen_run)])


def draw_search(trials: Trials, chosen_run: str, metric: str, path: Path) -> None:
    """Score against steps, and against each parameter; the chosen trial stands out. Failed trials have no score."""
    from matplotlib.figure import Figure

    shown = [trial for trial in trials if trial["path"]]
    names = list(dict.fromkeys(name for trial in shown for name in trial["trial"]))
    panels = 1 + len(names)
    columns = min(COLUMNS, panels)
    figure = Figure(figsize=(4.2 * columns, 3.4 * math.ceil(panels / columns)), layout="constrained")
    axes = figure.subplots(math.ceil(panels / columns), columns, squeeze=False).ravel()
    for trial in shown:
        steps, scores = zip(*trial["path"], strict=True)
        axes[0].plot(steps, scores, **_style(trial, chosen_run), linewidth=1)
    axes[0].set(xlabel="optimizer steps", ylabel=f"validation {metric}")
    for name, panel in zip(names, axes[1:], strict=False):
        _draw_parameter(panel, name, shown, chosen_run, metric)
    for panel in axes[panels:]:
        panel.set_visible(False)
    figure.suptitle(f"{len(trials)} trials; the chosen one is orange, the larger a point the longer it was trained")
    figure.savefig(path, dpi=130)


def _style(trial: Mapping[str, Any], chosen_run: str) -> dict[str, Any]:
    chosen = chosen_run in trial["run_ids"]
    return {"color": "tab:orange" if chosen else "tab:blue", "alpha": 1 if chosen else 0.55, "marker": "o", "ms": 4}


def _draw_parameter(panel: Axes, name: str, trials: Trials, chosen_run: str, metric: str) -> None:
    """Score against one parameter; values that are no numbers stand side by side."""
    values = [trial["trial"].get(name) for trial in trials]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    places = list(dict.fromkeys(map(str, values)))
    for trial, value in zip(trials, values, strict=True):
        at = value if numbers else places.index(str(value))
        style = _style(trial, chosen_run)
        size = 15 + 60 * trial["step"] / max(1, trial["steps"])
        panel.scatter([at], [trial["score"]], s=size, color=style["color"], alpha=style["alpha"])
    if numbers and min(values) > 0 and max(values) / min(values) >= LOG_RATIO:
        panel.set_xscale("log")
    if numbers and len(places) <= FEW_VALUES:
        panel.set_xticks(sorted(set(values)), [str(value) for value in sorted(set(values))])
        panel.minorticks_off()
    if not numbers:
        panel.set_xticks(range(len(places)), [place if len(place) < 24 else f"…{place[-22:]}" for place in places])
    panel.set(xlabel=name, ylabel=f"validation {metric}")
