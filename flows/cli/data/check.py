"""`apf check`."""

from __future__ import annotations

from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.runs.experiments import load_experiment
from flows.cli._app import Overrides, ParamsFile, out


def check(params: ParamsFile, overrides: Overrides = None) -> None:
    """Check a params file and report all problems at once."""
    experiment = load_experiment(params, overrides)
    if isinstance(experiment, WordVectorParams):
        settings = experiment.vectors
        out.print(f"{experiment.name}: fine. Word vectors, {settings.algorithm}, {settings.dimensions} dimensions.")
        return
    count = experiment.search.count
    counted = f"{count} combination{'s' if count != 1 else ''}"
    said = f"{experiment.name}: fine. {experiment.family.name}, {experiment.model.origin}, {counted}."
    out.print(said, soft_wrap=True)
