"""`apf check`."""

from __future__ import annotations

from apf_tasks.errors import DataError
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.runs.experiments import load_experiment
from flows.cli._app import Overrides, ParamsFile, out


def check(params: ParamsFile, overrides: Overrides = None) -> None:
    """Check a params file, and the first rows of a source that lies here, and report all problems at once."""
    experiment = load_experiment(params, overrides)
    if isinstance(experiment, WordVectorParams):
        settings = experiment.vectors
        out.print(f"{experiment.name}: fine. Word vectors, {settings.algorithm}, {settings.dimensions} dimensions.")
        return
    from apf_tasks.data.source_check import source_problems

    if problems := source_problems(experiment.data, experiment.family):
        counted = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        found = f"{counted}\n{''.join(f'  {problem}' + chr(10) for problem in problems)}"
        raise DataError(
            f"{experiment.name}: its rows", "what the family needs", found, "Mend the source or the params."
        )
    count = experiment.search.count
    counted = f"{count} combination{'s' if count != 1 else ''}"
    said = f"{experiment.name}: fine. {experiment.family.name}, {experiment.model.origin}, {counted}."
    out.print(said, soft_wrap=True)
