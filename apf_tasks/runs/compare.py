"""Comparison of past runs: params, scores, and which is better on the same test rows."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apf_tasks.data.rows import read_rows
from apf_tasks.errors import DataError, RegistryError
from apf_tasks.evaluation.comparison import Comparison, RunPredictions, compare
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.runs.reused import deliver_outbox
from apf_tasks.tracking.past_runs import PREDICTIONS, PastRun, ValidationPoint, artifact, past_run, validation_curve

Score = tuple[float, float, float]
"""A score with both ends of its interval."""


@dataclass(frozen=True)
class RunComparison:
    """Runs under the letters A, B, …, and the result of comparing them."""

    runs: dict[str, PastRun]
    comparison: Comparison
    curves: dict[str, tuple[ValidationPoint, ...]]
    """Run -> validations of its chosen trial, by the metric of the comparison."""
    picture: Path | None
    """Where it was drawn."""

    def differing(self) -> dict[str, list[str | None]]:
        """Dotted param -> its value in each run, where they are not all the same; None where it is not set."""
        names = sorted(set().union(*(run.flat for run in self.runs.values())))
        names = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]  # an empty section
        values = {name: [run.flat.get(name) for run in self.runs.values()] for name in names}
        return {name: found for name, found in values.items() if len(set(found)) > 1}

    def scores(self) -> dict[str, dict[str, Score]]:
        """Run -> metric -> its recorded test score on all of its test rows, with the interval."""
        return {letter: _recorded_scores(run) for letter, run in self.runs.items()}

    def trial(self, letter: str) -> str:
        """The searched values that a run chose."""
        handles = {facts.stage: facts.handle for facts in self.runs[letter].provenance.stages}
        values = handles["select"]["candidates"][0]["trial"] if "select" in handles else {}
        return ", ".join(f"{name.removeprefix('train.')}={value}" for name, value in values.items())


def compare_runs(names: Sequence[str], metric: str | None, picture: Path | None) -> RunComparison:
    """Compare the named runs; with a path for the `picture`, draw it there.

    Raises RegistryError and DataError when they cannot be compared.
    """
    if len(names) < 2:
        raise DataError("compare", "at least two runs", str(len(names)), "Name another run.")
    deliver_outbox()
    runs = dict(zip(string.ascii_uppercase, map(past_run, names), strict=False))
    ids = [run.run_id for run in runs.values()]
    if len(names) > len(runs) or (twice := [name for name in names if ids.count(ids[list(names).index(name)]) > 1]):
        found = f"{len(names)} runs" if len(names) > len(runs) else f"the same run by {' and '.join(twice)}"
        raise DataError("compare", f"up to {len(string.ascii_uppercase)} different runs", found, "Name others.")
    tested = [_predicted(letter, run) for letter, run in runs.items()]
    first = next(iter(runs.values())).params
    assert not isinstance(first, WordVectorParams)  # _predicted has refused it
    comparison = compare(tested, first.test, metric)
    curves = {letter: validation_curve(run.chosen_run, comparison.metric) for letter, run in runs.items()}
    found_runs = RunComparison(runs, comparison, curves, picture)
    if picture is not None:
        _draw(found_runs, picture)
    return found_runs


def _draw(compared: RunComparison, picture: Path) -> None:
    from apf_tasks.evaluation._comparison_picture import draw_comparison

    comparison = compared.comparison
    scores = {letter: found[comparison.metric] for letter, found in compared.scores().items()}
    legend = {
        letter: f"{letter}: {run.params.name} {run.short} {compared.trial(letter)}".strip()
        for letter, run in compared.runs.items()
    }
    try:
        draw_comparison(comparison, compared.curves, scores, legend, picture)
    except OSError as error:
        raise DataError(str(picture), "a place to write", str(error), "Choose another path for -o.") from error


def _predicted(letter: str, run: PastRun) -> RunPredictions:
    if isinstance(run.params, WordVectorParams):
        do = "See their maps and probes in `apf ui`."
        raise DataError(f"run {run.short}", "predictions of test rows", "word vectors, which have none", do)
    if run.status != "FINISHED":
        do = "Run it again: what it has done is kept."
        raise RegistryError(f"run {run.short}", "a run that was tested", run.status.lower(), do)
    report = json.loads(artifact(run.run_id, "test/report.json").read_text(encoding="utf-8"))
    labels = next((f.handle["label_names"] for f in run.provenance.stages if f.stage == "tokenize"), ())
    rows = read_rows(artifact(run.run_id, PREDICTIONS))
    return RunPredictions(letter, run.params.family, report["metric"], rows, tuple(labels))


def _recorded_scores(run: PastRun) -> dict[str, Score]:
    test = {name.removeprefix("test/"): value for name, value in run.metrics.items() if name.startswith("test/")}
    return {
        name: (value, test[f"{name}_low"], test[f"{name}_high"])
        for name, value in test.items()
        if f"{name}_low" in test
    }


def document(compared: RunComparison) -> dict[str, Any]:
    """All of it for scripts."""
    comparison, scores = compared.comparison, compared.scores()
    return {
        "runs": {
            letter: {
                "run_id": run.run_id,
                "experiment": run.params.name,
                "params_file": run.provenance.params_file,
                "test_rows": comparison.rows[letter],
                "scores": {name: value for name, (value, _, _) in scores[letter].items()},
                "intervals": {name: ends for name, (_, *ends) in scores[letter].items()},
                "shared_scores": comparison.scores[letter],
                "chosen": compared.trial(letter),
                "validation": [point._asdict() for point in compared.curves[letter]],
            }
            for letter, run in compared.runs.items()
        },
        "params": compared.differing(),
        "metric": comparison.metric,
        "shared_rows": comparison.shared_rows,
        "changed_rows": comparison.changed_rows,
        "pairs": [
            {
                "better": pair.better,
                "worse": pair.worse,
                "reliable": pair.reliable,
                "difference": pair.difference.difference,
                "interval": [pair.difference.low, pair.difference.high],
                "confidence": pair.confidence / 100,
                "predicted_alike": pair.alike,
                "sentence": str(pair),
            }
            for pair in comparison.pairs
        ],
        "picture": None if compared.picture is None else str(compared.picture),
    }
