"""A part of a tokenized train split: fewer rows of the same data, for a learning curve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.cache.fingerprints import digest, fingerprint_files
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.errors import UntrainableDataError
from apf_tasks.examples import IGNORE_INDEX, Examples, write_table

TOKENS, ROWS = "tokens.arrow", "rows.parquet"


def subsample(out: Path, split: TokenizedSplit, fraction: float) -> TokenizedSplit:
    """`fraction` of the rows, with all windows of each. Raises UntrainableDataError when none of them has a target.

    A smaller fraction is a part of a larger one. `unknown_fraction` stays that of the whole split.
    """
    rows = read_rows(split.path / ROWS)
    kept = chosen_rows(rows, fraction)
    part = _examples_of(split, kept)
    supervised = pc.sum(pc.not_equal(pc.list_flatten(part.table.column("labels")), IGNORE_INDEX)).as_py() or 0
    if not supervised:
        do = "Use a larger fraction."
        raise UntrainableDataError(f"{fraction:g} of the {split.name} split", "targets to learn from", "none", do)
    write_table(part.table, out / TOKENS)
    write_rows(rows.iloc[kept].reset_index(drop=True), out / ROWS)
    return split.model_copy(
        update={
            "path": out,
            "fingerprint": fingerprint_files(out, [TOKENS, ROWS]),
            "rows": len(kept),
            "examples": len(part),
            "tokens": int(part.lengths.sum()),
            "supervised_tokens": supervised,
            "truncated_rows": len(np.unique(part.rows[part.table.column("truncated").to_numpy()])),
        }
    )


def size_of_part(rows: int, fraction: float) -> int:
    """How many of `rows` are `fraction` of them; at least one."""
    return max(1, round(fraction * rows))


def chosen_rows(rows: pd.DataFrame, fraction: float) -> np.ndarray:
    """Positions of the rows with the smallest digests of their content, ascending: the same ones every time.

    Where a row stands, and what it is called, does not count; the hash split and `data.max_rows` digest the text alone,
    so that this order is another one than theirs.
    """
    content = rows.drop(columns="row_id").to_dict("records")
    digests = [digest({"part of train": row}) for row in content]
    order = sorted(range(len(rows)), key=lambda i: (digests[i], i))
    return np.sort(np.asarray(order[: size_of_part(len(rows), fraction)]))


def _examples_of(split: TokenizedSplit, kept: np.ndarray) -> Examples:
    """The examples of the kept rows, their rows numbered from 0 again."""
    whole = Examples.of(split)
    chosen = np.isin(whole.rows, kept)
    table = whole.table.filter(pa.array(chosen))
    if "row" in table.column_names:
        place = np.searchsorted(kept, whole.rows[chosen])
        table = table.set_column(table.column_names.index("row"), "row", pa.array(place, type=pa.int64()))
    return Examples(table)
