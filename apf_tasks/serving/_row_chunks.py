"""A file to be scored, a few thousand rows at a time, so that it need not fit in memory. No row is lost.

JSON lines, CSV, TSV and Parquet are read in pieces by the same readers as data sources; other formats as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from apf_tasks.data.columns import to_text
from apf_tasks.errors import DataError
from apf_tasks.params.data import DataParams
from apf_tasks.sources.data import missing_path_error
from apf_tasks.sources.formats.delimited import find_delimiter, read_delimited
from apf_tasks.sources.formats.detect import format_of
from apf_tasks.sources.formats.json_rows import read_json_lines
from apf_tasks.sources.formats.table import Rejected, Table
from apf_tasks.sources.reading import read_file, reading_parquet
from apf_tasks.sources.text_encoding import is_utf8_file

CHUNK_ROWS = 2_000
MOST_OPEN_LINES = 2_000
"""A quotation mark that is not closed within so many lines was none: the reader says so, and starts again behind it."""


class Row(NamedTuple):
    """A row of the file."""

    number: int
    """The line where it starts, or its number from 1."""
    values: dict[str, Any]
    """Scalars as text, missing ones as None. Empty when it cannot be read."""
    problem: str = ""
    """Why it cannot be read."""


def chunks(file: Path, size: int = CHUNK_ROWS) -> Iterator[list[Row]]:
    """All rows of the file in order, about `size` at a time. Raises DataError when there is no such file, or no row."""
    if not file.is_file():
        raise missing_path_error("input", file)
    data = DataParams(source=str(file))
    kind = format_of(file, data)
    if kind == "parquet":
        tables = _parquet_tables(file, size)
    elif kind in ("jsonl", "csv", "tsv") and is_utf8_file(file) and not (kind == "jsonl" and _is_array(file)):
        tables = _text_tables(file, kind, size)
    else:
        tables = iter([(0, read_file(file, file.name, data))])
    found = False
    for before, table in tables:
        rows = _rows(table, before)
        for start in range(0, len(rows), size):
            found = True
            yield rows[start : start + size]
    if not found:
        raise DataError(str(file), "rows", "none", "Check where it comes from.")


def _rows(table: Table, before: int) -> list[Row]:
    """The rows of a table that begins `before` lines into the file, those that cannot be read in their places."""
    columns = [table.values(i) for i in range(len(table.columns))]
    rows = [
        Row(before + number, {name: to_text(values[i]) for name, values in zip(table.columns, columns, strict=True)})
        for i, number in enumerate(table.numbers)
    ]
    rows += [Row(before + rejected.row, {}, rejected.reason) for rejected in table.rejected]
    return sorted(rows, key=lambda row: row.number)


def _parquet_tables(file: Path, size: int) -> Iterator[tuple[int, Table]]:
    read_file(file, file.name, DataParams(source=str(file)))  # says what is wrong with it
    before = 0
    for batch in _batches(file, size):
        with reading_parquet(file):
            columns = [column.to_pylist() for column in batch.columns]
        numbers = list(range(1, batch.num_rows + 1))
        yield before, Table(file.name, tuple(batch.schema.names), numbers, [], lambda i, c=columns: list(c[i]))  # type: ignore[misc]
        before += batch.num_rows


def _batches(file: Path, size: int) -> Iterator[pa.RecordBatch]:
    with reading_parquet(file):
        batches = pq.ParquetFile(file).iter_batches(batch_size=size)
    while True:
        with reading_parquet(file):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _is_array(file: Path) -> bool:
    with file.open("rb") as lines:
        return next((line.lstrip()[:1] == b"[" for line in lines if line.strip(b" \t\r\n\xef\xbb\xbf")), False)


def _text_tables(file: Path, kind: str, size: int) -> Iterator[tuple[int, Table]]:
    """Tables of pieces of a text file. In CSV a piece begins with the header and never ends within quotation marks."""
    header, lines_before, delimiter = b"", 0, None
    with file.open("rb") as source:
        for lines in _pieces(source, kind == "csv", size):
            before = lines_before - header.count(b"\n")
            lines_before += len(lines)
            text, broken = _decoded(header, lines, file.name)
            if kind == "jsonl":
                table = read_json_lines(text, file.name)
            else:
                if kind == "csv" and delimiter is None:
                    delimiter = find_delimiter(text.splitlines(keepends=True))
                table = read_delimited(text, file.name, kind, True, delimiter)
                if not header:
                    first = min([*table.numbers, *(r.row for r in table.rejected)], default=len(lines) + 1)
                    header = b"".join(lines[: first - 1])
            known = {rejected.row for rejected in broken}
            others = [r for r in (*table.rejected, *table.left_out) if r.row not in known]
            yield before, Table(table.name, table.columns, table.numbers, [*broken, *others], table.values)


def _pieces(source: Any, quoted: bool, size: int) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    is_open = False
    for line in source:
        lines.append(line)
        is_open ^= quoted and line.count(b'"') % 2 == 1
        if len(lines) >= size and (not is_open or len(lines) >= size + MOST_OPEN_LINES):
            yield lines
            lines, is_open = [], False
    if lines:
        yield lines


def _decoded(header: bytes, lines: list[bytes], name: str) -> tuple[str, list[Rejected]]:
    """The text of a piece behind the header, lines that are not UTF-8 left empty, and what is wrong with those."""
    start, broken = header.count(b"\n"), []
    try:
        return (header + b"".join(lines)).decode("utf-8-sig"), []
    except UnicodeDecodeError:
        texts = [header.decode("utf-8-sig")]
        for number, line in enumerate(lines, start + 1):
            try:
                texts.append(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                broken.append(Rejected(name, number, f"byte 0x{line[error.start]:02x} is not UTF-8"))
                texts.append("\n")
        return "".join(texts), broken
