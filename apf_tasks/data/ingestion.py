"""The first stage: whatever the source is -> one table of checked rows, and the list of those that cannot be used."""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from apf_tasks.artifacts import RawData
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.columns import read_column, to_text, unused_columns, wanted_columns
from apf_tasks.errors import DataError, ParamsError
from apf_tasks.family import Family, get_family
from apf_tasks.params.data import DataParams, LabelSource
from apf_tasks.params.family import FamilyParams
from apf_tasks.sources.formats.table import Rejected, Table
from apf_tasks.sources.reading import read_source

ROWS, REJECTED = "rows.parquet", "rejected.jsonl"
FILE, NUMBER, SOURCE_LABEL = "_file", "_number", "_label"
LEFT_OUT = "left out"
NLI_LABEL, NO_AGREEMENT = "gold_label", "-"
"""The label of SNLI (Bowman et al. 2015, arXiv:1508.05326, section 3), MultiNLI; what stands where it is none."""
WHOLE = re.compile(r"-?\d+\.0+")
EXTRA = ("id", "group", "time")
"""Columns that any family may have."""
SHOWN_PLACES = 3


def ingest(out: Path, data: DataParams, family: FamilyParams) -> RawData:
    """Read, normalise, check and write the rows of `data.source`. Raises DataError when too many cannot be used."""
    kind = get_family(family)
    check_names(data, kind)
    rows, rejected, left_out, unused = _read(data, kind)
    total = len(rows) + len(rejected) + len(left_out)
    outcome, notes = judge_rows(rows, data, kind)
    bad = rows[~outcome.isin(["", LEFT_OUT])]
    places = zip(bad[FILE], bad[NUMBER], outcome[bad.index], strict=True)
    rejected += [Rejected(str(file), int(number), str(reason)) for file, number, reason in places]
    rejected.sort(key=lambda r: (r.file, r.row))
    _refuse_too_many(rejected, total, data, out)
    checked = rows[outcome == ""]
    _refuse_none(rows, checked, data, kind)
    kept = _limit(checked, kind, data.max_rows)
    table = _arrow_table(kept, kind)
    pq.write_table(table, out / ROWS, compression="zstd")
    return RawData(
        path=out,
        fingerprint=fingerprint_files(out, [ROWS]),
        source=_shown_source(data),
        rows={str(role): int(count) for role, count in kept["role"].value_counts(sort=False).items()},
        columns=tuple(table.column_names),
        rejected_rows=len(rejected),
        left_out_rows=total - len(rejected) - len(kept),
        notes=dict(Counter(one.reason for one in left_out))
        | notes
        | ({f"columns not used ({', '.join(unused)})": len(unused)} if unused else {}),
    )


def _shown_source(data: DataParams) -> str:
    source = data.source
    return source if isinstance(source, str) else ", ".join(f"{role}: {text}" for role, text in source.items())


def check_names(data: DataParams, kind: Family) -> None:
    """A column that nobody asks for is a slip of the pen."""
    known = [*dict.fromkeys((*kind.columns, *(n for s in kind.alternatives for n in s), *kind.optional)), *EXTRA]
    for name in data.columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            do = f"Did you mean {near[0]}?" if near else "Remove it."
            raise ParamsError("data.columns", "only " + ", ".join(known), repr(name), do)


def _read(data: DataParams, kind: Family) -> tuple[pd.DataFrame, list[Rejected], list[Rejected], list[str]]:
    """All rows with normalised columns, what could not even be read, what is no row, and columns to tell that they are
    not used.
    """
    parts: list[pd.DataFrame] = []
    unused: dict[str, None] = {}
    rejected: list[Rejected] = []
    left_out: list[Rejected] = []
    for role, table in read_source(data):
        rejected += table.rejected
        left_out += table.left_out
        if table.numbers or not table.rejected:
            parts.append(normalise(table, role, data, kind))
            unused |= dict.fromkeys(unused_columns(table, data, kind) if kind.tells_unused else ())
    columns = ["row_id", *kind.columns, "role", FILE, NUMBER]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns, dtype=object)
    rows = rows.astype(object).where(rows.notna(), None)  # a file may lack what another has
    return rows, rejected, left_out, list(unused)


def normalise(table: Table, role: str, data: DataParams, kind: Family) -> pd.DataFrame:
    """The columns that the family asks for, and `group` and `time` where there are any, as plain Python values."""
    numbers = table.numbers
    found: dict[str, Sequence[Any]] = {"row_id": [f"{table.name}:{number}" for number in numbers]}
    if "id" in data.columns:
        found["row_id"] = read_column(table, "id", data, kind)
    for name in wanted_columns(table, data, kind):
        found[name] = read_column(table, name, data, kind)
    found |= {"role": [role] * len(numbers), FILE: [table.name] * len(numbers), NUMBER: numbers}
    return pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in found.items()})


def judge_rows(rows: pd.DataFrame, data: DataParams, kind: Family) -> tuple[pd.Series[str], dict[str, int]]:
    """Per row "" when it is kept, LEFT_OUT, or the reason why it is rejected; and what was repaired, how often.

    Writes the labels and the family's canonical columns into `rows`.
    """
    outcome, notes = _apply_labels(rows, data, kind)
    for name in sorted(data.columns.keys() & {"id", "group", "time"}):
        absent = rows["row_id" if name == "id" else name].isna()
        outcome[absent & (outcome == "")] = f"no {name}"
    open_rows = outcome[outcome == ""].index
    checked = kind.check(rows.loc[open_rows].drop(columns=["row_id", "role", FILE, NUMBER]))
    outcome[open_rows] = checked.reasons
    for name in dict.fromkeys((*kind.columns, *(n for n in kind.optional if n in checked.rows))):
        values = dict(zip(checked.rows.index, checked.rows[name], strict=True))
        rows[name] = pd.Series([values.get(i) for i in rows.index], index=rows.index, dtype=object)
    for name in kind.optional:
        if name in rows and name not in checked.rows:
            del rows[name]
    return outcome, {what: count for what, count in (*notes.items(), *checked.notes.items()) if count}


def _apply_labels(rows: pd.DataFrame, data: DataParams, kind: Family) -> tuple[pd.Series[str], dict[str, int]]:
    """Write the labels into `rows`. Per row "", LEFT_OUT or why it is rejected; and what was repaired or looks odd."""
    name = kind.label_column
    if name is None or name not in rows.columns:
        return pd.Series("", index=rows.index, dtype=object), {}
    source = rows[name]
    same = numbers_written_twice(source)
    rows[SOURCE_LABEL] = pd.Series([same.get(_stripped(v), v) for v in source], index=rows.index, dtype=object)
    notes = {"labels with a decimal point, merged with the same number without one": _count(source, same)}
    scored = [_label(value, data.labels) for value in rows[SOURCE_LABEL]]
    if data.columns.get(name, name) == NLI_LABEL:
        undecided = [value == NO_AGREEMENT for value in source]
        scored = [(None, LEFT_OUT) if no else one for no, one in zip(undecided, scored, strict=True)]
        notes[f"rows on whose label the annotators did not agree ({NO_AGREEMENT!r}), left out"] = sum(undecided)
    rows[name] = pd.Series([label for label, _ in scored], index=rows.index, dtype=object)
    for names in look_alikes(rows[name]):
        merged = f"data.labels: {{{names[0]}: [{', '.join(names)}]}}"
        what = f"rows whose labels differ only by case, blanks or width ({', '.join(names)}): {merged} merges them"
        notes[what] = _count(rows[name], dict.fromkeys(names, ""))
    return pd.Series([reason for _, reason in scored], index=rows.index, dtype=object), notes


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else None


def _count(values: pd.Series[Any], of: Mapping[str, str]) -> int:
    return sum(_stripped(value) in of for value in values)


def numbers_written_twice(values: Iterable[Any]) -> dict[str, str]:
    """`1.0` -> `1` for the labels that stand there in both forms."""
    there = {_stripped(value) for value in values}
    return {
        text: text.partition(".")[0]
        for text in there
        if text and WHOLE.fullmatch(text) and text.partition(".")[0] in there
    }


def look_alikes(labels: Iterable[Any]) -> list[list[str]]:
    """Groups of labels that differ only by case, white space or the width of their characters, the commonest first."""
    counts = Counter(label for label in labels if isinstance(label, str))
    groups: dict[str, list[str]] = {}
    for label, _ in counts.most_common():
        plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        groups.setdefault(plain, []).append(label)
    return [names for names in groups.values() if len(names) > 1]


def _label(value: Any, labels: Mapping[str, LabelSource]) -> tuple[Any, str]:
    """(label, "" or why there is none)."""
    if not isinstance(value, str):
        return value, ""  # missing, or no single label: the family judges it
    text = value.strip()
    if not labels:
        return text, ""
    for name, wanted in labels.items():
        given = wanted if isinstance(wanted, list) else [] if isinstance(wanted, tuple) else [wanted]
        if text in map(to_text, given):
            return name, ""
    ranges = {name: wanted for name, wanted in labels.items() if isinstance(wanted, tuple)}
    if not ranges:
        return None, LEFT_OUT
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        return None, "label is not a number"
    return next(((name, "") for name, (low, high) in ranges.items() if low <= number <= high), (None, LEFT_OUT))


def _refuse_too_many(rejected: Sequence[Rejected], total: int, data: DataParams, out: Path) -> None:
    """Write the list of rejected rows; stop when it is too long."""
    lines = [json.dumps({"file": r.file, "row": r.row, "reason": r.reason}, ensure_ascii=False) for r in rejected]
    (out / REJECTED).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if not rejected or len(rejected) <= data.max_rejected * total:
        return
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in Counter(r.reason for r in rejected).most_common(5))
    places = ", ".join(f"{r.file}:{r.row}" for r in rejected[:SHOWN_PLACES])
    found = f"{len(rejected):,} of {total:,} ({reasons}), first at {places}"
    do = f"The complete list is {out / REJECTED}. Repair the rows, or raise data.max_rejected."
    expected = f"at most {data.max_rejected:.1%} unusable rows (data.max_rejected)"
    raise DataError(f"data.source {_shown_source(data)}", expected, found, do)


def _refuse_none(rows: pd.DataFrame, checked: pd.DataFrame, data: DataParams, kind: Family) -> None:
    """Stop when nothing is left, a label of the params has no rows, or two rows share an id."""
    where = f"data.source {_shown_source(data)}"
    if rows.empty:
        raise DataError(where, "rows", "none", "Check where it comes from, and data.header.")
    labelled = SOURCE_LABEL in rows.columns
    present = {label for label in rows[kind.label_column] if isinstance(label, str)} if labelled else set()
    for label, wanted in data.labels.items() if labelled else ():
        if label not in present:
            common = Counter(map(str, rows[SOURCE_LABEL])).most_common(6)
            found = "none; the values are " + ", ".join(repr(value) for value, _ in common)
            do = "Correct its value or range, or remove it."
            raise DataError(f"data.labels, {label!r}", f"rows with {wanted!r}", found, do)
    if checked.empty:
        raise DataError(where, "rows that can be used", "none", f"All {len(rows):,} are rejected or left out.")
    twice = checked["row_id"][checked["row_id"].duplicated()]
    if len(twice):
        found = f"{twice.iloc[0]!r} again ({len(twice):,} repeated)"
        do = "Map another column to data.columns.id, or none: then rows are identified by file and number."
        raise DataError(where, "a different id in every row", found, do)


def _limit(rows: pd.DataFrame, kind: Family, max_rows: int | None) -> pd.DataFrame:
    """The rows with the smallest hash of their text: when data grow, most of the choice stays as it was."""
    if max_rows is None or len(rows) <= max_rows:
        return rows
    texts = zip(*(rows[name] for name in kind.text_columns), strict=True)
    hashes = [blake2b("\x1f".join(map(str, text)).encode(), digest_size=16).digest() for text in texts]
    order = sorted(range(len(rows)), key=lambda i: (hashes[i], rows["row_id"].iat[i]))
    return rows.iloc[sorted(order[:max_rows])]


def _arrow_table(rows: pd.DataFrame, kind: Family) -> pa.Table:
    """Columns in a fixed order, without pandas metadata: the same rows are the same bytes."""
    extra = [name for name in (*kind.optional, "group", "time") if name in rows.columns]
    arrays: dict[str, pa.Array] = {}
    for name in dict.fromkeys(("row_id", *kind.columns, *extra, "role")):
        values = [None if isinstance(v, float) and math.isnan(v) else v for v in rows[name]]
        try:
            arrays[name] = pa.array(_numbers(values) if name == "time" else values)
        except pa.ArrowException as error:
            raise DataError(f"column {name}", "values of one kind", str(error), "Make them alike.") from error
    return pa.table(arrays)


def _numbers(values: list[Any]) -> list[Any]:
    """Times that are all numbers as numbers, since "10" sorts before "9"; dates sort right as text."""
    try:
        return [None if value is None else float(value) for value in values]
    except ValueError:
        return values
