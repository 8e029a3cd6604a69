"""CSV and TSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from apf_tasks.sources.formats.literals import read_cells
from apf_tasks.sources.formats.table import Rejected, Table

DELIMITERS = (",", ";", "\t", "|")
HEADER_AGAIN, EMPTY_LINE = "the header once more", "an empty line of the table"
LOOKED_AT = 200
"""Records that the delimiter is found by."""
ALIKE = 0.9
"""Share of them that it has to cut alike."""
MAX_FIELD_CHARACTERS = 1 << 30
"""The csv module's own limit of 131,072 would reject a chapter of a book."""


def read_delimited(text: str, name: str, kind: str, header: bool, delimiter: str | None = None) -> Table:
    """CSV by RFC 4180, with the delimiter that cuts its records alike unless one is given. In TSV a quotation mark is
    a character like any other: texts are full of lone ones.

    Records of empty cells alone are left out and counted, and so is the header where it stands again among the rows.
    """
    # csv has to see line ends as they are; str.splitlines would also cut at U+2028 inside a text
    lines = list(io.StringIO(text, newline=""))
    dialect: dict[str, Any] = {"strict": True, "delimiter": delimiter or find_delimiter(lines)}
    if kind == "tsv":
        dialect = {"delimiter": delimiter or "\t", "quoting": csv.QUOTE_NONE}
    parsed = [p for p in _records(lines, dialect) if p[1]]
    rejected = [Rejected(name, number, found) for number, found in parsed if isinstance(found, str)]
    records = [(number, found) for number, found in parsed if not isinstance(found, str)]
    left_out: list[Rejected] = []
    if header and records:
        first = records.pop(0)[1]
        columns = tuple(column.strip() for column in first)
        left_out += [Rejected(name, number, HEADER_AGAIN) for number, fields in records if fields == first]
        records = [(number, fields) for number, fields in records if fields != first]
    else:
        width = Counter(len(fields) for _, fields in records).most_common(1)
        columns = tuple(str(i) for i in range(width[0][0] if width else 0))
    left_out += [Rejected(name, number, EMPTY_LINE) for number, fields in records if not any(fields)]
    records = [(number, fields) for number, fields in records if any(fields)]
    whole = [(number, fields) for number, fields in records if len(fields) == len(columns)]
    rejected += [
        Rejected(name, number, f"{len(fields)} fields instead of {len(columns)}")
        for number, fields in records
        if len(fields) != len(columns)
    ]
    numbers = [number for number, _ in whole]
    # texts that read "NA" or "null" are texts; only nothing at all is missing
    return Table(
        name, columns, numbers, rejected, lambda i: read_cells([fields[i] or None for _, fields in whole]), left_out
    )


def find_delimiter(lines: Sequence[str]) -> str:
    """The one of , ; tab | that cuts the first records into most columns, all of the same number; else a comma."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    found: dict[str, float] = {}
    for delimiter in DELIMITERS:
        try:
            records = csv.reader(lines, delimiter=delimiter, strict=True)
            widths = Counter(len(fields) for fields in itertools.islice(records, LOOKED_AT) if any(fields))
        except csv.Error:
            continue
        width, often = widths.most_common(1)[0] if widths else (1, 0)
        if width > 1 and often >= ALIKE * widths.total():
            found[delimiter] = often / widths.total()
    return max(found, key=lambda delimiter: found[delimiter]) if found else DELIMITERS[0]


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
