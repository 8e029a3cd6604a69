"""What a run would meet in a local source, seen on its first rows: `apf check` tells it before anything runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pandas as pd

from apf_tasks.data.columns import read_column, wanted_columns
from apf_tasks.data.ingestion import check_names, judge_rows, normalise
from apf_tasks.errors import DataError, ParamsError, SourceError
from apf_tasks.family import Family, get_family
from apf_tasks.params.data import DataParams
from apf_tasks.params.family import FamilyParams
from apf_tasks.sources.data import HUB, PYPI, data_files, splits
from apf_tasks.sources.formats.table import Table
from apf_tasks.sources.reading import read_source

ROWS = 1000
MOST_BYTES = 2**25
"""Files of more are not read: the answer would not come at once."""


def is_looked_at(data: DataParams) -> bool:
    """Whether the source lies here and is small enough. Raises SourceError for one that is missing."""
    if any(source.startswith((HUB, PYPI)) for source in splits(data).values()):
        return False
    files = [file for found in data_files(data).values() for file in found]
    inside = [part for file in files for part in (file.rglob("*") if file.is_dir() else [file])]
    return sum(part.stat().st_size for part in inside) <= MOST_BYTES


def source_problems(data: DataParams, family: FamilyParams) -> list[str]:
    """What is wrong with the source, a sentence each; empty when it is fine, elsewhere, or too large to look at."""
    kind = get_family(family)
    try:
        check_names(data, kind)
        if not is_looked_at(data):
            return []
        tables = list(read_source(data))
    except (DataError, ParamsError, SourceError) as error:
        return [str(error)]
    heads = [(role, _head(table)) for role, table in tables]
    if missing := [problem for _, head in heads for problem in _missing_columns(head, data, kind)]:
        return missing
    parts = [normalise(head, role, data, kind) for role, head in heads if head.numbers]
    rejected = Counter(one.reason for _, head in heads for one in head.rejected)
    if not parts:
        return [f"data.source: expected rows, found none{_listed(rejected)}"]
    rows = pd.concat(parts, ignore_index=True).astype(object)
    rows = rows.where(rows.notna(), None)
    outcome, _ = judge_rows(rows, data, kind)
    rejected += Counter(reason for reason in outcome if reason not in ("", "left out"))
    return [*_too_many(rejected, len(rows), data), *_one_label(rows[outcome == ""], kind)]


def _head(table: Table) -> Table:
    last = table.numbers[:ROWS][-1:]
    rejected = [one for one in table.rejected if not last or one.row <= last[0]]
    return replace(
        table, numbers=table.numbers[:ROWS], rejected=rejected, values=lambda column: table.values(column)[:ROWS]
    )


def _missing_columns(table: Table, data: DataParams, kind: Family) -> list[str]:
    names = [*wanted_columns(table, data, kind), *(["id"] if "id" in data.columns else [])]
    problems = []
    for name in names:
        try:
            read_column(table, name, data, kind)
        except DataError as error:
            problems.append(str(error))
    return problems


def _too_many(rejected: Counter[str], rows: int, data: DataParams) -> list[str]:
    count = rejected.total()
    if count <= data.max_rejected * (rows + count):
        return []
    expected = f"at most {data.max_rejected:.1%} unusable rows (data.max_rejected)"
    return [f"data.source: expected {expected}, found {count:,} among the first {rows:,}{_listed(rejected)}"]


def _listed(rejected: Counter[str]) -> str:
    return f" ({', '.join(f'{reason}: {n:,}' for reason, n in rejected.most_common(5))})" if rejected else ""


def _one_label(rows: pd.DataFrame, kind: Family) -> list[str]:
    if kind.label_column is None or kind.label_column not in rows:
        return []
    labels = {label for label in rows[kind.label_column] if isinstance(label, str)}
    if len(labels) != 1:
        return []
    return [f"data.source: expected several labels, found {labels.pop()!r} alone in the first {len(rows):,} rows"]
