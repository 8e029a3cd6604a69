"""Draws docs/images/demo-test.png: the test scores of a run beside those of its baselines.

    .venv/bin/python docs/draw_test_scores.py mlruns/stages/evaluate/KEY/report.json docs/images/demo-test.png

A run's report is also in MLflow, as the artifact test/report.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

NAMES = {
    "majority": "most frequent label",
    "before_fine_tuning": "the model before fine-tuning",
    "averaged_vectors_logistic_regression": "averaged vectors + logistic regression",
    "tfidf_logistic_regression": "TF-IDF + logistic regression",
}


def draw(report: Path, picture: Path) -> None:
    """A bar for each, the fine-tuned model last; its line is the interval of the bootstrap."""
    test = json.loads(report.read_text())
    metric = test["metric"]
    (low, high), score = test["intervals"][metric], test["scores"][metric]
    bars = {NAMES.get(name, name): scores[metric] for name, scores in test["baselines"].items()}
    bars = dict(sorted(bars.items(), key=lambda bar: bar[1])) | {"fine-tuned": score}
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(bars), list(bars.values()), color=["#b8c0cc"] * (len(bars) - 1) + ["#2563a8"], height=0.66)
    axes.errorbar([score], ["fine-tuned"], xerr=[[score - low], [high - score]], color="black", capsize=4)
    for place, value in enumerate(bars.values()):
        axes.text(0.01, place, f"{value:.3f}", va="center", color="white" if value == score else "black", size=9)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"{metric} on {test['rows']:,} test rows; line: 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(left=False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:]))
