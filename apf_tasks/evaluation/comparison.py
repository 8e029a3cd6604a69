"""Which of several models is better, on the test rows that they share. N rows, K statistics."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import PairedDifference, paired_bootstrap
from apf_tasks.family import Family, get_family
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.search import EvaluationParams


@dataclass(frozen=True)
class RunPredictions:
    """The test predictions of one run."""

    name: str
    family: FamilyParams
    metric: str
    """The one that decides in this run."""
    rows: pd.DataFrame
    """`row_id`, the inputs, `reference`, `prediction`."""
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class PairwiseResult:
    """Two runs on the same rows, the one with the better score first."""

    better: str
    worse: str
    metric: str
    difference: PairedDifference
    """better minus worse; negative where less is better."""
    reliable: bool
    confidence: float
    alike: int
    """Rows of which both say the same."""

    def __str__(self) -> str:
        """One sentence."""
        found = self.difference
        if found.difference == 0 == found.low == found.high:
            return f"{self.better} and {self.worse} are equal: the same {self.metric} in every resample."
        interval = f"{self.confidence:.4g} % interval [{found.low:+.4f}, {found.high:+.4f}]"
        if self.reliable:
            by = f"{found.difference:+.4f} {self.metric}"
            return f"{self.better} is reliably better than {self.worse} by {by}, {interval}."
        return (
            f"{self.better} is not reliably better than {self.worse} "
            f"({found.difference:+.4f} {self.metric}, {interval})."
        )


@dataclass(frozen=True)
class Comparison:
    """Several runs on the test rows that all of them have."""

    metric: str
    rows: dict[str, int]
    """Run -> its own test rows."""
    shared_rows: int
    changed_rows: int
    """Rows with the same id whose input or reference is not the same; left out."""
    scores: dict[str, dict[str, float]]
    """Run -> metric -> score on the shared rows."""
    pairs: tuple[PairwiseResult, ...]


def compare(runs: Sequence[RunPredictions], settings: EvaluationParams, metric: str | None = None) -> Comparison:
    """Scores and paired differences of every two runs by `metric`, else by the one that decides in all of them.

    With several pairs each interval is wider (Bonferroni 1936: 1 - (1 - confidence) / pairs), so that all of them hold
    together with the confidence of `settings`. Raises DataError when the runs cannot be compared.
    """
    family = get_family(runs[0].family)
    metric = _common_metric(runs, family, metric)
    shared, changed = shared_rows([run.rows for run in runs], _input_columns(family))
    if shared[0].empty:
        raise _nothing_shared(runs, changed)
    labels = sorted(set().union(*(run.label_names for run in runs)))
    counts = {run.name: _statistics(run, runs[0], rows, labels) for run, rows in zip(runs, shared, strict=True)}
    _check_tokens(counts, family, metric)
    scores = {
        name: {score: float(value) for score, value in family.scores(found.sum(axis=0)).items()}
        for name, found in counts.items()
    }
    return Comparison(
        metric=metric,
        rows={run.name: len(run.rows) for run in runs},
        shared_rows=len(shared[0]),
        changed_rows=changed,
        scores=scores,
        pairs=tuple(_pairs(counts, scores, shared, family, metric, settings)),
    )


def shared_rows(tables: Sequence[pd.DataFrame], inputs: Sequence[str]) -> tuple[list[pd.DataFrame], int]:
    """The rows whose id, `inputs` and reference are in all tables, in one order; and how many share the id alone."""
    known = [dict(zip(table["row_id"], _contents(table, inputs), strict=True)) for table in tables]
    everywhere = [row_id for row_id in known[0] if all(row_id in other for other in known[1:])]
    same = [row_id for row_id in everywhere if all(other[row_id] == known[0][row_id] for other in known[1:])]
    return [table.set_index("row_id").loc[same].reset_index() for table in tables], len(everywhere) - len(same)


def _contents(table: pd.DataFrame, inputs: Sequence[str]) -> list[str]:
    columns = [c for c in (*inputs, "reference") if c in table]
    return [repr(values) for values in zip(*(table[c] for c in columns), strict=True)]


def _input_columns(family: Family) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*family.example, *family.text_columns)))


def _common_metric(runs: Sequence[RunPredictions], family: Family, asked: str | None) -> str:
    names = {run.name: run.family.name for run in runs}
    if len(set(names.values())) > 1:
        raise DataError("compare", "runs of one family", _listed(names), "Compare runs that solve the same task.")
    metrics = {run.name: ", ".join(get_family(run.family).metrics) for run in runs}
    if len(set(metrics.values())) > 1:
        found = _listed(metrics)
        raise DataError("compare", "runs with the same scores", found, "Their `family` options give different scores.")
    if asked is not None:
        if asked not in family.metrics:
            raise DataError("compare --metric", "one of " + ", ".join(family.metrics), repr(asked), "Choose one.")
        return asked
    deciding = {run.name: run.metric for run in runs}
    if len(set(deciding.values())) > 1:
        raise DataError("compare", "one metric that decides in all", _listed(deciding), "Add --metric NAME.")
    return runs[0].metric


def _listed(values: Mapping[str, str]) -> str:
    return " · ".join(f"{name}: {value}" for name, value in values.items())


def _nothing_shared(runs: Sequence[RunPredictions], changed: int) -> DataError:
    examples = {run.name: f"{len(run.rows):,} rows such as {run.rows['row_id'].iloc[0]!r}" for run in runs}
    found = f"none with the same content, {changed:,} with the same id" if changed else f"none. {_listed(examples)}"
    do = "Rows are identified by file name and number, or by data.columns.id: test both on the same ones."
    return DataError("compare", "test rows that all runs have", found, do)


def _statistics(run: RunPredictions, first: RunPredictions, rows: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """Per-row counts (N, K) of a run; measured as the first run measures, or not at all."""
    both = rows["reference"].tolist(), rows["prediction"].tolist(), labels
    counts = get_family(run.family).statistics(*both)
    if run.family != first.family and not np.array_equal(counts, get_family(first.family).statistics(*both)):
        found = f"options under `family` by which the predictions of {run.name} score otherwise"
        raise DataError("compare", f"the measure of {first.name}", found, "Test both with the same options.")
    return counts


def _check_tokens(counts: Mapping[str, np.ndarray], family: Family, metric: str) -> None:
    """A language model's own tokens are what it is scored on, unless the score is per byte."""
    if metric not in family.per_token:
        return
    first, *others = counts.values()
    if any(not np.array_equal(first[:, 1], other[:, 1]) for other in others):
        free = [name for name in family.metrics if name not in family.per_token]
        do = f"Compare by --metric {free[0]}." if free else "Compare models with the same tokenizer."
        raise DataError("compare", f"the same tokens: {metric} is per token", "different tokens in the same rows", do)


def _pairs(
    counts: Mapping[str, np.ndarray],
    scores: Mapping[str, Mapping[str, float]],
    shared: Sequence[pd.DataFrame],
    family: Family,
    metric: str,
    settings: EvaluationParams,
) -> Iterator[PairwiseResult]:
    """Every two runs, the better one first; the best runs first."""
    sign = family.sign(metric)
    order = sorted(counts, key=lambda name: -sign * scores[name][metric])
    tables = dict(zip(counts, shared, strict=True))
    pairs = list(itertools.combinations(order, 2))
    confidence = 1 - (1 - settings.confidence) / len(pairs) if pairs else settings.confidence
    for better, worse in pairs:
        found = paired_bootstrap(
            counts[better], counts[worse], family.scores, metric, settings.resamples, settings.seed, confidence
        )
        alike = _same(tables[better]["prediction"].tolist(), tables[worse]["prediction"].tolist())
        yield PairwiseResult(better, worse, metric, found, found.better(sign), 100 * confidence, alike)


def _same(first: Sequence[Any], second: Sequence[Any]) -> int:
    return sum(a == b for a, b in zip(first, second, strict=True))
