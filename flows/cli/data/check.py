"""`apf check`."""

from __future__ import annotations

from apf_tasks.params.file import load_experiment
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.tracking.past_runs import local_params
from flows.cli._app import Overrides, ParamsFile, out


def check(params: ParamsFile, overrides: Overrides = None) -> None:
    """Check a params file and report all problems at once."""
    experiment = load_experiment(local_params(params), overrides or ())
    if isinstance(experiment, WordVectorParams):
        settings = experiment.vectors
        out.print(f"{experiment.name}: fine. Word vectors, {settings.algorithm}, {settings.dimensions} dimensions.")
        return
    count = experiment.search.count
    out.print(f"{experiment.name}: fine. {experiment.family.name}, {experiment.model.origin}, {count} combination(s).")
