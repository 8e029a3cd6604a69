"""Workbooks of Excel (.xlsx), read by pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from apf_tasks.errors import DataError
from apf_tasks.sources.formats.delimited import EMPTY_LINE, HEADER_AGAIN
from apf_tasks.sources.formats.table import Rejected, Table


def read_workbook(path: Path, name: str, header: bool, sheet: str | int | None) -> Table:
    """One sheet; rows are numbered as Excel shows them. Raises DataError where several sheets have rows and none is
    named.
    """
    import pandas as pd

    try:
        # a cell that reads "NA" is a text; only an empty one is missing
        read: dict[str, Any] = pd.read_excel(
            path, sheet_name=None, header=None, dtype=object, keep_default_na=False, na_values=[""]
        )
    except (BadZipFile, ValueError, KeyError, OSError) as error:
        found = f"{type(error).__name__}: {error}"
        raise DataError(str(path), "a workbook that can be read", found, "Save it again, or as CSV.") from error
    frame = read[_chosen(list(read), {title for title in read if len(read[title])}, sheet, path)]
    rows = [[None if pd.isna(cell) else cell for cell in row] for row in frame.itertuples(index=False, name=None)]
    columns = tuple(map(str, range(frame.shape[1])))
    first = next((i for i, row in enumerate(rows) if any(cell is not None for cell in row)), 0)
    if header and rows:
        columns = tuple("" if cell is None else str(cell).strip() for cell in rows[first])
    kept: list[int] = []
    left_out: list[Rejected] = []
    for i in range(first + header, len(rows)):
        if all(cell is None for cell in rows[i]):
            left_out.append(Rejected(name, i + 1, EMPTY_LINE))
        elif header and rows[i] == rows[first]:
            left_out.append(Rejected(name, i + 1, HEADER_AGAIN))
        else:
            kept.append(i)
    return Table(name, columns, [i + 1 for i in kept], [], lambda c: [rows[i][c] for i in kept], left_out)


def _chosen(titles: list[str], filled: set[str], sheet: str | int | None, path: Path) -> str:
    if isinstance(sheet, int) and 0 <= sheet < len(titles):
        return titles[sheet]
    if sheet in titles:
        return str(sheet)
    if sheet is None and len(filled) == 1:
        return next(iter(filled))
    expected = "one sheet with rows" if sheet is None else f"a sheet {sheet!r}"
    do = "Write data.sheet: NAME, one of them."
    raise DataError(str(path), expected, "the sheets " + ", ".join(titles), do)
