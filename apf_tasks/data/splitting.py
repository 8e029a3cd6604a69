"""Rows become train, validation and test, and no text, or its like, stands on two sides.

In this order: contradictions and exact duplicates leave, near-duplicates are found, roles are given, and what is still
too similar across sides leaves the side that matters less. Everything that left is told in `leaks.json`.

Under `hash` a row's role depends on its own text alone, so it is the same after the data has grown; a row may still
leave because a new one contradicts it or is too similar. N rows, U units (rows that must stay together).
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from apf_tasks.artifacts import RawData, Split
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data._leak_report import conflict_section, duplicate_section, group_section, near_duplicate_section
from apf_tasks.data._near_duplicates import Indices, Mask, Shingles, merge_groups
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.errors import DataError, UntrainableDataError
from apf_tasks.family import Family, get_family
from apf_tasks.params.data import SPLIT_NAMES, SplitName, SplitParams
from apf_tasks.params.family import FamilyParams

Roles = NDArray[np.object_]

COLUMN_BETWEEN = "\x1f"
BY_IMPORTANCE: tuple[SplitName, ...] = ("test", "validation", "train")


def split_rows(out: Path, raw: RawData, split: SplitParams, family: FamilyParams) -> Split:
    """Give every row its role; write the three splits and the leak report."""
    record = get_family(family)
    rows = _read(raw.path / "rows.parquet")
    keys, published = comparable_texts(rows, record.key_columns or record.text_columns), set(rows["role"])
    conflicts = conflicting(rows, keys, record.label_column)
    duplicates = repeated(rows, keys, among=~conflicts)
    leaks = {
        "conflicting_labels": conflict_section(rows, keys, conflicts, record.label_column),
        "exact_duplicates": duplicate_section(rows, keys, duplicates),
    }
    rows = rows[~conflicts & (duplicates < 0)].reset_index(drop=True)
    texts = comparable_texts(rows, record.text_columns)
    shingles = Shingles(texts.tolist()) if split.near_duplicate_similarity else None
    group = shingles.groups(split.near_duplicate_similarity or 1) if shingles else pd.factorize(texts)[0]
    rows["role"] = _roles(rows, texts, group, published, split, record)
    near = _too_similar(rows, shingles, group, split.near_duplicate_similarity)
    leaks["near_duplicates_across_sides"] = near_duplicate_section(rows, texts, near, shingles)
    leaks["near_duplicate_groups"] = group_section(rows, texts, group)
    (out / "leaks.json").write_text(json.dumps(leaks, indent=2, ensure_ascii=False), encoding="utf-8")
    sides = {name: rows[(rows["role"] == name) & (near < 0)] for name in SPLIT_NAMES}
    _check_not_empty(sides, published, split)
    label_names = _check_labels(sides, record)
    return Split(
        path=out,
        fingerprint=_write(out, sides),
        rows={name: len(side) for name, side in sides.items()},
        dropped_duplicates=leaks["exact_duplicates"]["count"],
        dropped_conflicts=leaks["conflicting_labels"]["count"],
        near_duplicate_groups=leaks["near_duplicate_groups"]["count"],
        dropped_near_duplicates=leaks["near_duplicates_across_sides"]["count"],
        label_names=label_names,
        method=split.method,
        seed=split.seed,
    )


def _read(path: Path) -> pd.DataFrame:
    """The rows, with the role train where the source has no splits."""
    rows = read_rows(path)
    return rows.assign(role=rows["role"].replace("all", "train") if "role" in rows else "train")


def _write(out: Path, sides: dict[SplitName, pd.DataFrame]) -> str:
    """One file per split; their common fingerprint."""
    for name, side in sides.items():
        write_rows(side.drop(columns="role"), out / f"{name}.parquet")
    return fingerprint_files(out, [f"{name}.parquet" for name in sides])


def comparable_texts(rows: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series[str]:
    """What two rows are compared by: the text columns in Unicode form NFKC, case folded, white space as one blank.

    So full-width and half-width letters, upper and lower case, and other line breaks make no difference.
    """
    joined = rows[columns[0]].astype(str)
    for column in columns[1:]:
        joined = joined + COLUMN_BETWEEN + rows[column].astype(str)
    return pd.Series([_comparable(text) for text in joined], index=rows.index, dtype=object)


def _comparable(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return COLUMN_BETWEEN.join(" ".join(part.split()) for part in folded.split(COLUMN_BETWEEN))


def conflicting(rows: pd.DataFrame, texts: pd.Series[str], label_column: str | None) -> Mask:
    """Rows whose text also occurs with another label. All of them leave: nobody knows which label is right.

    One exception: published test rows that agree with each other stay, since scores on them have to stay comparable.
    """
    if label_column is None:
        return np.zeros(len(rows), dtype=bool)
    labels, is_test = rows[label_column].astype(str), rows["role"] == "test"
    conflict = labels.groupby(texts).transform("nunique") > 1
    agreed = labels[is_test].groupby(texts[is_test]).transform("nunique").reindex(rows.index, fill_value=2) == 1
    return np.asarray(conflict & ~(is_test & agreed), dtype=bool)


def repeated(rows: pd.DataFrame, texts: pd.Series[str], among: Mask) -> Indices:
    """For each row of `among` the row with the same text that stays instead of it, else -1, (N,).

    The first one stays; but a test row rather than a validation row, and a validation row rather than a train row.
    """
    because = np.full(len(rows), -1)
    importance = rows["role"].map({name: i for i, name in enumerate(BY_IMPORTANCE)}).to_numpy()
    order = np.flatnonzero(among)
    order = order[np.argsort(importance[order], kind="stable")]
    text, _ = pd.factorize(texts.to_numpy()[order])  # numbers in order of first appearance
    first = order[np.flatnonzero(~pd.Series(text).duplicated())][text]
    because[order] = np.where(first == order, -1, first)
    return because


def _roles(
    rows: pd.DataFrame, texts: pd.Series[str], group: Indices, published: set[str], split: SplitParams, family: Family
) -> Roles:
    """The role of every row, (N,): the published one, or one of those that the source lacks, carved out of train."""
    roles = rows["role"].to_numpy(dtype=object, copy=True)
    pool = np.flatnonzero(roles == "train")
    shares = (
        0.0 if "test" in published else split.test_fraction,
        0.0 if "validation" in published else split.validation_fraction,
    )
    if not any(shares) or not len(pool):
        return roles
    if split.method == "hash":
        roles[pool] = _cut(np.array([_text_number(texts[i]) for i in pool]), shares)
        return roles
    carved = rows.iloc[pool].reset_index(drop=True)
    unit = pd.factorize(group[pool])[0].astype(np.int64)
    if split.method == "time":
        unit = _newest_first(carved, unit)
    if split.method == "group":
        unit = _with_groups(carved, unit)
    order, stratum = np.arange(unit.max() + 1), np.zeros(unit.max() + 1, dtype=np.int64)
    if split.method == "stratified":
        stratum = _strata(carved, unit, family)
    if split.method != "time":
        order = np.random.default_rng(split.seed).permutation(order)
    roles[pool] = _place_units(np.bincount(unit), order, stratum, shares)[unit]
    return roles


def _cut(position: NDArray[np.float64], shares: tuple[float, float]) -> Roles:
    """Roles of positions in [0, 1): first the share of test, then that of validation, then train."""
    test, validation = shares
    return np.select([position < test, position < test + validation], ["test", "validation"], "train").astype(object)


def _text_number(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _place_units(sizes: Indices, order: Indices, stratum: Indices, shares: tuple[float, float]) -> Roles:
    """Roles of units, (U,): in each stratum, by where the middle of a unit lies among its rows in this order.

    A label with very few rows so goes to train first, where it is needed most.
    """
    roles = np.empty(len(sizes), dtype=object)
    for one in np.unique(stratum):
        units = order[stratum[order] == one]
        ends = np.cumsum(sizes[units])
        roles[units] = _cut((ends - sizes[units] / 2) / ends[-1], shares)
    return roles


def _strata(rows: pd.DataFrame, unit: Indices, family: Family) -> Indices:
    """Number of the label of each unit, (U,); a unit of several labels goes by its first row."""
    if family.label_column is None:
        found = f"the family {family.name}, which has none"
        do = "Use split.method: hash or random."
        raise DataError("split.method stratified", "rows with one label each", found, do)
    first = np.unique(unit, return_index=True)[1]
    return pd.factorize(rows[family.label_column].iloc[first], sort=True)[0].astype(np.int64)


def _column(rows: pd.DataFrame, method: str) -> pd.Series[Any]:
    """The column that the method goes by and that is called like it."""
    if method not in rows:
        found = "only " + ", ".join(str(c) for c in rows.columns if c not in ("row_id", "role"))
        do = f"Map it under data.columns, `{method}: <column of the source>`, or choose another split.method."
        raise DataError(f"split.method {method}", f"a column `{method}`", found, do)
    return rows[method]


def _with_groups(rows: pd.DataFrame, unit: Indices) -> Indices:
    """Units after the rows of one group came together, (N,). A row without a group is a group of its own."""
    value = pd.factorize(_column(rows, "group"))[0]
    grouped = np.flatnonzero(value >= 0)
    _, first, which = np.unique(value[grouped], return_index=True, return_inverse=True)
    return pd.factorize(merge_groups(unit, grouped, grouped[first[which]]))[0].astype(np.int64)


def _newest_first(rows: pd.DataFrame, unit: Indices) -> Indices:
    """Units numbered by the time of their newest row, the newest 0; equal times are one unit, (N,)."""
    time = _column(rows, "time")
    numbers = pd.to_numeric(time, errors="coerce") if not pd.api.types.is_datetime64_any_dtype(time) else time
    moments = pd.to_datetime(time, errors="coerce", utc=True, format="ISO8601") if numbers.isna().any() else numbers
    if moments.isna().any():
        bad = rows[moments.isna()].iloc[0]
        found = f"{bad['time']!r} in row {bad['row_id']} ({int(moments.isna().sum()):,} such rows)"
        do = "Write times as numbers or as 2024-12-31 or 2024-12-31T23:59:59, or choose another split.method."
        raise DataError("split.method time", "a number or an ISO 8601 date in every row", found, do)
    newest = moments.groupby(unit).transform("max")
    return np.asarray(newest.rank(method="dense", ascending=False).astype(np.int64) - 1)


def _too_similar(rows: pd.DataFrame, shingles: Shingles | None, group: Indices, similarity: float | None) -> Indices:
    """For each row the near-duplicate on a more important side because of which it leaves, else -1, (N,)."""
    because = np.full(len(rows), -1)
    if shingles is None or similarity is None:
        return because
    has_like, roles = np.bincount(group)[group] > 1, rows["role"].to_numpy()
    for i, keeper in enumerate(BY_IMPORTANCE[:-1]):
        below = has_like & np.isin(roles, BY_IMPORTANCE[i + 1 :]) & (because < 0)
        found = shingles.nearest(similarity, below, has_like & (roles == keeper) & (because < 0))
        because = np.maximum(because, found)
    return because


def _check_not_empty(sides: dict[SplitName, pd.DataFrame], published: set[str], split: SplitParams) -> None:
    found = ", ".join(f"{name} {len(side):,}" for name, side in sides.items())
    shares = {"test": split.test_fraction, "validation": split.validation_fraction}
    shares["train"] = 1 - sum(shares.values())
    for name in (name for name, side in sides.items() if side.empty):
        total, needed = sum(map(len, sides.values())), math.ceil(1 / shares[name]) if shares[name] else 0
        if name in published and name != "train":
            do = f"All rows removed as duplicates or contradictions: check the {name} source."
        elif not needed:
            do = f"Set split.{name}_fraction above 0, or give data.source a {name} file."
        elif total < needed:
            do = f"At least {needed:,} rows are needed: add rows, or set a larger share under `split`."
        else:
            do = "Add rows, set a larger share under `split`, or split.method: random. Rows that stay together " \
                 "(near-duplicates, groups, equal times) can also leave a side without any."  # fmt: skip
        raise UntrainableDataError("split", f"at least one row in {name}", found, do)


def _check_labels(sides: dict[SplitName, pd.DataFrame], family: Family) -> tuple[str, ...]:
    """The labels of train, sorted; every label of the other sides has to be among them."""
    carried = {name: Counter(label for row in family.labels_of(side) for label in row) for name, side in sides.items()}
    names = tuple(sorted(carried["train"]))
    if family.label_column is None and family.labels is None:
        return ()
    if len(names) < (2 if family.label_column else 1):
        do = "Add rows with another label, and check data.columns and data.labels."
        found = f"only {names[0]!r}" if names else "none"
        raise UntrainableDataError(
            "split, train", "two labels or more" if family.label_column else "a label", found, do
        )
    for name, counts in carried.items():
        unknown = sorted(label for label in counts if label not in names)
        if unknown:
            said = ", ".join(f"{label!r} ({counts[label]:,} rows)" for label in unknown)
            do = f"Add train rows with this label, or {family.leave_label_out}."
            raise UntrainableDataError(f"split, {name}", "only labels that train has: " + ", ".join(names), said, do)
    return names
