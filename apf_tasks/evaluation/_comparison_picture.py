"""Several runs in one picture: validation curves, test scores and paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apf_tasks.evaluation.comparison import Comparison
from apf_tasks.tracking.past_runs import ValidationPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = ("-", "--", "-.", ":")
"""Markers that distinguish curves without colours, and where they overlap."""


def draw_comparison(
    comparison: Comparison,
    curves: Mapping[str, Sequence[ValidationPoint]],
    scores: Mapping[str, tuple[float, float, float]],
    legend: Mapping[str, str],
    path: Path,
) -> None:
    """Write the picture. `scores`: run -> its test score by the metric, low and high; `legend`: run -> what it is."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    axes = figure.subplot_mosaic(
        [["curves", "scores"], ["curves", "pairs"]],
        width_ratios=[3, 2],
        height_ratios=[len(scores) + 1, len(comparison.pairs) + 1],
    )
    metric = comparison.metric.replace("_", " ")
    above, below = axes["scores"], axes["pairs"]
    _draw_curves(axes["curves"], curves, legend, metric)
    _draw_intervals(above, scores, {name: f"C{i}" for i, name in enumerate(scores)}, ".4f")
    above.set(title="On test, with intervals", xlabel=metric)
    pairs = {
        f"{pair.better} − {pair.worse}": (pair.difference.difference, pair.difference.low, pair.difference.high)
        for pair in comparison.pairs
    }
    reliable = {f"{pair.better} − {pair.worse}": pair.reliable for pair in comparison.pairs}
    _draw_intervals(below, pairs, {name: "black" if reliable[name] else "grey" for name in pairs}, "+.4f")
    below.axvline(0, color="black", linewidth=0.8, linestyle=":")
    below.set(
        title=f"Differences on the same {comparison.shared_rows:,} test rows", xlabel=f"{metric}, black: reliable"
    )
    figure.savefig(path, dpi=120)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Sequence[ValidationPoint]], legend: Mapping[str, str], metric: str
) -> None:
    for i, (name, points) in enumerate(curves.items()):
        if not points:
            continue
        axes.plot(
            [point.epoch for point in points],
            [point.score for point in points],
            color=f"C{i}",
            linestyle=LINES[i % len(LINES)],
            marker="o",
            markersize=3.5,
            label=legend[name].encode("ascii", "replace").decode().replace("$", r"\$"),  # the font has no other signs
        )
    axes.set(title="The chosen trials on validation", xlabel="epoch", ylabel=metric)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()


def _draw_intervals(
    axes: Axes, intervals: Mapping[str, tuple[float, float, float]], colours: Mapping[str, str], shown: str
) -> None:
    """A row per name, the first on top: a point with its interval, and the number beside it."""
    for at, (name, (value, low, high)) in enumerate(intervals.items()):
        axes.plot([low, high], [at, at], color=colours[name], linewidth=2, solid_capstyle="butt")
        axes.plot([value], [at], "o", color=colours[name])
        axes.annotate(
            f"{value:{shown}}", (value, at), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_yticks(range(len(intervals)), list(intervals))
    axes.set_ylim(len(intervals) - 0.3, -0.8)
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.3)
