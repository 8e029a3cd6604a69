"""The picture of a learning curve."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apf_tasks.evaluation._power_law import Extrapolation, Floats
from apf_tasks.evaluation._score_scale import Scale

SIZES = 60
"""Places at which the curve is drawn."""
MEASURED, FITTED = "#1f4e79", "#c0504d"


class CurvePoints(NamedTuple):
    """Train rows, validation scores and their intervals, each (P,)."""

    rows: Floats
    scores: Floats
    low: Floats
    high: Floats


def draw_curve(
    path: Path, points: CurvePoints, fitted: Extrapolation | None, scale: Scale, tails: list[float], verdict: str
) -> None:
    """Points with their intervals over the number of rows (doublings); the curve, dashed where it extrapolates."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    last = points.rows[-1]
    if fitted is not None:
        sizes = np.sort(np.append(np.geomspace(points.rows[0], 2 * last, SIZES), last))
        low, high = np.quantile(scale.score(fitted.chance.errors(sizes)), tails, axis=0)
        curve = scale.score(fitted.law.errors(sizes))[0]
        axes.fill_between(sizes, low, high, color=FITTED, alpha=0.15, linewidth=0, label="curves that chance explains")
        axes.plot(sizes[sizes <= last], curve[sizes <= last], color=FITTED, label="fitted power law")
        axes.plot(sizes[sizes >= last], curve[sizes >= last], color=FITTED, linestyle="--", label="beyond the data")
        ahead = sizes >= last
        seen = np.concatenate([points.low, points.high, low[ahead], high[ahead], curve])
        axes.set_ylim(seen.min() - 0.04 * np.ptp(seen), seen.max() + 0.04 * np.ptp(seen))  # the band may leave it
    below, above = np.maximum(0, points.scores - points.low), np.maximum(0, points.high - points.scores)
    axes.errorbar(
        points.rows,
        points.scores,
        yerr=[below, above],
        fmt="o",
        color=MEASURED,
        capsize=4,
        label="measured, validation",
    )
    axes.set_xscale("log", base=2)
    ticks = [*points.rows, 2 * last] if fitted is not None else list(points.rows)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rows, _: f"{rows:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    better = "higher" if scale.sign > 0 else "lower"
    axes.set(xlabel="train rows", ylabel=f"{scale.metric} ({better} is better)")
    axes.set_title("\n".join(textwrap.wrap(verdict, 95)), fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
