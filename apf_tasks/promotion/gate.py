"""May the challenger become the champion? Rules of the params, each with what was needed and what was found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd

from apf_tasks.artifacts import VersionScores
from apf_tasks.data.rows import read_rows
from apf_tasks.errors import PromotionRefusedError
from apf_tasks.evaluation.comparison import RunPredictions, compare
from apf_tasks.family import Family, get_family
from apf_tasks.params.base import Frozen
from apf_tasks.params.experiment import Params
from apf_tasks.params.gate import GateParams

MIB = 2**20
QUARTERS = ("shortest quarter", "shorter quarter", "longer quarter", "longest quarter")


class GateCheck(Frozen):
    """One rule of the gate and how it went."""

    name: str
    """The key under `gate` in the params."""
    needed: str
    found: str
    passed: bool


class SliceComparison(Frozen):
    """Both on one part of the rows."""

    name: str
    rows: int
    metric: str
    champion: float
    challenger: float
    reliable: bool
    """Whether the difference is, by the paired bootstrap."""
    said: str


class GateResult(Frozen):
    """What the gate says about a challenger."""

    challenger: str
    champion: str | None
    """None where there is none: then the rules that need one are not asked."""
    rules: tuple[GateCheck, ...]
    trade_off: tuple[SliceComparison, ...] = ()
    """Both on the rows that the champion was tested on, on newer ones, and on general text."""

    @property
    def passed(self) -> bool:
        """Whether every rule was."""
        return all(rule.passed for rule in self.rules)

    @property
    def found(self) -> dict[str, str]:
        """Rule -> what was found, for the log."""
        return {rule.name: rule.found for rule in self.rules}

    def check(self) -> None:
        """Raises PromotionRefusedError with every rule that failed and by how much."""
        failed = [rule for rule in self.rules if not rule.passed]
        if failed:
            raise PromotionRefusedError(
                f"gate for {self.challenger}",
                "; ".join(f"{rule.name}: {rule.needed}" for rule in failed),
                "; ".join(rule.found for rule in failed),
                f"The champion stays{'' if self.champion is None else ' ' + self.champion}. The challenger remains in "
                "the registry; compare both with `apf compare`.",
            )


def check_scores(challenger: VersionScores, champion: VersionScores | None, params: Params) -> GateResult:
    """All rules on scores and size. Those on time and serving need the models to run: see `judge.py`."""
    gate, functions = params.gate, get_family(params.family)
    rules = list(_minimum(challenger, gate, params.metric, functions))
    if champion is not None:
        rules.append(_against(challenger, champion, params))
        rules += _labels(challenger, champion, params, functions)
        rules += _size(challenger, champion, gate)
    return GateResult(
        challenger=challenger.uri, champion=None if champion is None else champion.uri, rules=tuple(rules)
    )


def _minimum(challenger: VersionScores, gate: GateParams, metric: str, family: Family) -> Iterator[GateCheck]:
    if gate.minimum is None:
        return
    sign, found = family.sign(metric), challenger.scores[metric]
    yield GateCheck(
        name="minimum",
        needed=f"{metric} {'≥' if sign > 0 else '≤'} {gate.minimum:g}",
        found=f"{found:.4f} on {challenger.rows:,} test rows",
        passed=sign * found >= sign * gate.minimum,
    )


def _against(challenger: VersionScores, champion: VersionScores, params: Params) -> GateCheck:
    """The paired bootstrap of both on the same rows."""
    settings = params.test.model_copy(update={"confidence": params.gate.confidence})
    both = [_predicted(contender, params) for contender in (challenger, champion)]
    [pair] = compare(both, settings, params.metric).pairs
    ahead = pair.better == challenger.uri
    needed, passed = "not reliably worse than the champion", ahead or not pair.reliable
    if params.gate.beat_champion:
        needed, passed = "reliably better than the champion", ahead and pair.reliable
    return GateCheck(
        name="beat_champion", needed=f"{needed} by {params.metric}", found=str(pair).rstrip("."), passed=passed
    )


def _predicted(contender: VersionScores, params: Params) -> RunPredictions:
    rows = read_rows(contender.path / "predictions.parquet")
    return RunPredictions(contender.uri, params.family, params.metric, rows, contender.label_names)


def _labels(challenger: VersionScores, champion: VersionScores, params: Params, family: Family) -> Iterator[GateCheck]:
    """The metric on the rows of each label, and of each slice, where the challenger loses most."""
    gate = params.gate
    tables = [read_rows(contender.path / "predictions.parquet") for contender in (challenger, champion)]
    names = sorted({*challenger.label_names, *champion.label_names})
    references = tables[0]["reference"].tolist()
    counts = [family.statistics(references, table["prediction"].tolist(), names) for table in tables]
    if gate.label_loss is not None:
        yield from _worst("label", gate.label_loss, _rows_of_labels(tables[0]), counts, params, family)
    if gate.slice_loss is not None:
        yield from _worst("slice", gate.slice_loss, _rows_of_slices(tables[0], family), counts, params, family)


def _worst(
    what: str, most: float, rows_of: dict[str, list[int]], counts: list[np.ndarray], params: Params, family: Family
) -> Iterator[GateCheck]:
    """The part of the rows on which the challenger (the first of `counts`) loses most; none where all are small."""
    metric = params.metric
    rows_of = {name: rows for name, rows in rows_of.items() if len(rows) >= params.gate.label_rows}
    if not rows_of:
        return

    def score(of: np.ndarray, rows: list[int]) -> float:
        return family.sign(metric) * float(family.scores(of[rows].sum(axis=0))[metric])

    losses = {name: score(counts[1], rows) - score(counts[0], rows) for name, rows in rows_of.items()}
    worst = max(losses, key=lambda name: losses[name])
    yield GateCheck(
        name=f"{what}_loss",
        needed=f"no {what} with {metric} more than {most:g} below the champion's",
        found=f"{worst}: {-losses[worst]:+.4f} on {len(rows_of[worst]):,} rows",
        passed=losses[worst] <= most,
    )


def _rows_of_labels(table: pd.DataFrame) -> dict[str, list[int]]:
    """Label -> positions of the rows that carry it by their reference."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for position, labels in enumerate(table["labels"]):
        for label in dict.fromkeys(labels):
            found[label].append(position)
    return found


def _rows_of_slices(table: pd.DataFrame, family: Family) -> dict[str, list[int]]:
    """Quarters of the rows by the length of their texts, and the groups of `data.columns.group`."""
    lengths = sum(
        (table[name].fillna("").astype(str).str.len() for name in family.text_columns), pd.Series(0, table.index)
    )
    quarters = np.array_split(np.argsort(lengths.to_numpy(), kind="stable"), len(QUARTERS))
    found = {name: quarter.tolist() for name, quarter in zip(QUARTERS, quarters, strict=True)}
    if "group" in table:
        found |= {f"group {name}": np.asarray(rows).tolist() for name, rows in table.groupby("group").indices.items()}
    return found


def _size(challenger: VersionScores, champion: VersionScores, gate: GateParams) -> Iterator[GateCheck]:
    if gate.size_growth is None:
        return
    sizes = [contender.model_bytes for contender in (challenger, champion)]
    yield GateCheck(
        name="size_growth",
        needed=f"at most {gate.size_growth:g} times the champion's size",
        found=f"{sizes[0] / sizes[1]:.2f} times: {sizes[0] / MIB:,.1f} and {sizes[1] / MIB:,.1f} MiB",
        passed=sizes[0] <= gate.size_growth * sizes[1],
    )


def latency_rule(seconds: list[float], gate: GateParams) -> GateCheck:
    """From the time per row of the challenger and of the champion."""
    assert gate.latency_growth is not None
    return GateCheck(
        name="latency_growth",
        needed=f"at most {gate.latency_growth:g} times the champion's time per row",
        found=f"{seconds[0] / seconds[1]:.2f} times: {1e3 * seconds[0]:.2f} and {1e3 * seconds[1]:.2f} ms",
        passed=seconds[0] <= gate.latency_growth * seconds[1],
    )


def serving_rule(problem: str | None) -> GateCheck:
    """From what went wrong when the registered model was served; None when nothing did."""
    return GateCheck(
        name="serves",
        needed="a prediction per row from `mlflow models serve`",
        found=problem or "it answered",
        passed=problem is None,
    )
