"""What a challenger has forgotten: both on the champion's own test rows, on newer ones, and on general text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from apf_tasks.artifacts import Split, VersionScores
from apf_tasks.data.rows import read_rows
from apf_tasks.evaluation.comparison import PairwiseResult, RunPredictions, compare
from apf_tasks.family import Family, get_family
from apf_tasks.params.experiment import Params
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.gate import GateParams
from apf_tasks.promotion.gate import GateCheck, SliceComparison

OLD, NEW, GENERAL = "the champion's test rows", "newer test rows", "general text"


class VersionPair(NamedTuple):
    """The challenger and the champion on the same rows."""

    challenger: VersionScores
    champion: VersionScores


def general_family(family: FamilyParams) -> FamilyParams:
    """How a language model is asked about general text: every token of it."""
    return family.model_copy(update={"mode": "documents"} if "mode" in type(family).model_fields else {})


def old_and_new(
    then: Split, today: Split, on_then: VersionPair, on_today: VersionPair, params: Params
) -> list[SliceComparison]:
    """The champion's test rows, but for those that the challenger may have learned from by now; and the newer ones."""
    functions = get_family(params.family)
    before, learned = then.path / "test.parquet", today.path / "train.parquet"
    found: list[SliceComparison] = []
    for name, both, left_out in ((OLD, on_then, learned), (NEW, on_today, before)):
        without = set(_contents(read_rows(left_out), functions))
        found += _part(name, both, without, params.family, params.metric, params)
    return found


def on_general_text(both: VersionPair, params: Params) -> list[SliceComparison]:
    """By perplexity. Raises DataError when the two have different tokenizers."""
    family = general_family(params.family)
    return list(_part(GENERAL, both, set(), family, perplexity(family), params))


def perplexity(family: FamilyParams) -> str:
    """The name of the score."""
    return next(name for name in get_family(family).metrics if name.endswith("perplexity"))


def rules(parts: list[SliceComparison], gate: GateParams, sign: int) -> Iterator[GateCheck]:
    """`gate.forgetting` and `gate.perplexity_growth`. `sign` is -1 where less of the metric is better."""
    at = {part.name: part for part in parts}
    if gate.forgetting is not None and (old := at.get(OLD)) is not None:
        loss = sign * (old.champion - old.challenger)
        yield GateCheck(
            name="forgetting",
            needed=f"{old.metric} at most {gate.forgetting:g} worse on {OLD}",
            found=f"{-loss:+.4f} on {old.rows:,} rows",
            passed=loss <= gate.forgetting,
        )
    if gate.perplexity_growth is not None and (text := at.get(GENERAL)) is not None:
        yield GateCheck(
            name="perplexity_growth",
            needed=f"at most {gate.perplexity_growth:g} times the champion's {text.metric} on {GENERAL}",
            found=f"{text.challenger / text.champion:.3f} times: {text.challenger:.2f} and {text.champion:.2f}",
            passed=text.challenger <= gate.perplexity_growth * text.champion,
        )


def _part(
    name: str, both: VersionPair, without: set[str], family: FamilyParams, metric: str, params: Params
) -> Iterator[SliceComparison]:
    """One, or none where no row is left."""
    functions = get_family(family)
    tables = []
    for contender in both:
        table = read_rows(contender.path / "predictions.parquet")
        tables.append(table[[text not in without for text in _contents(table, functions)]])
    if tables[0].empty:
        return
    sides = [
        RunPredictions(contender.uri, family, metric, table, contender.label_names)
        for contender, table in zip(both, tables, strict=True)
    ]
    settings = params.test.model_copy(update={"confidence": params.gate.confidence})
    found = compare(sides, settings, metric)
    pair: PairwiseResult = found.pairs[0]
    yield SliceComparison(
        name=name,
        rows=found.shared_rows,
        metric=metric,
        champion=found.scores[both.champion.uri][metric],
        challenger=found.scores[both.challenger.uri][metric],
        reliable=pair.reliable,
        said=str(pair),
    )


def _contents(rows: pd.DataFrame, family: Family) -> list[str]:
    """The texts of each row: what tells it from others."""
    return ["\n".join(map(str, texts)) for texts in zip(*(rows[name] for name in family.text_columns), strict=True)]
