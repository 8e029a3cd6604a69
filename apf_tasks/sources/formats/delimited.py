"""CSV and TSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from apf_tasks.sources.formats.table import Rejected, Table

MAX_FIELD_CHARACTERS = 1 << 30
"""The csv module's own limit of 131,072 would reject a chapter of a book."""


def read_delimited(text: str, name: str, kind: str, header: bool) -> Table:
    """CSV by RFC 4180. In TSV a quotation mark is a character like any other: texts are full of lone ones."""
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {"strict": True}
    # csv has to see line ends as they are; str.splitlines would also cut at U+2028 inside a text
    parsed = [p for p in _records(list(io.StringIO(text, newline="")), dialect) if p[1]]
    rejected = [Rejected(name, number, found) for number, found in parsed if isinstance(found, str)]
    records = [(number, found) for number, found in parsed if not isinstance(found, str)]
    if header and records:
        columns = tuple(column.strip() for column in records.pop(0)[1])
    else:
        width = Counter(len(fields) for _, fields in records).most_common(1)
        columns = tuple(str(i) for i in range(width[0][0] if width else 0))
    whole = [(number, fields) for number, fields in records if len(fields) == len(columns)]
    rejected += [
        Rejected(name, number, f"{len(fields)} fields instead of {len(columns)}")
        for number, fields in records
        if len(fields) != len(columns)
    ]
    numbers = [number for number, _ in whole]
    # texts that read "NA" or "null" are texts; only nothing at all is missing
    return Table(name, columns, numbers, rejected, lambda i: [fields[i] or None for _, fields in whole])


def _records(lines: list[str], dialect: dict[str, Any]) -> Iterator[tuple[int, list[str] | str]]:
    """(line, fields) of each record, or (line, what is wrong with it).

    After a quoting mistake, parsing starts again on the next line: an open quote must not swallow the rows after it.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    start = 0
    while start < len(lines):
        reader = csv.reader(itertools.islice(lines, start, None), **dialect)
        before = start
        try:
            for fields in reader:
                yield before + 1, fields
                before = start + reader.line_num
            return
        except csv.Error as error:
            yield before + 1, f"quoting: {error}"
            start = before + 1
