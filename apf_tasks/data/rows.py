"""Rows on disk: Parquet files whose values come back as plain Python, lists and mappings included."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def read_rows(path: Path) -> pd.DataFrame:
    """A Parquet file as columns of plain Python values; missing ones are None."""
    table = pq.read_table(path)
    columns = {name: pd.Series(table.column(name).to_pylist(), dtype=object) for name in table.column_names}
    return pd.DataFrame(columns)


def without_nan(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with None for every NaN: what is served is JSON, which has no NaN."""
    gaps = [str(name) for name in rows if rows[name].isna().any()]
    return rows.assign(**{name: rows[name].astype(object).where(rows[name].notna(), None) for name in gaps})


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows without an index and without pandas' own notes: the same rows are the same bytes."""
    table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd")
