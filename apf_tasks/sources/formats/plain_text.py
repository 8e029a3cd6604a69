"""Plain text cut into documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from apf_tasks.errors import DataError
from apf_tasks.sources.formats.table import Table, numbered_lines, table_of

HEADING = re.compile(r"\s*=\s+(?!=).*[^=\s]\s+=\s*")
"""` = Title = ` as in WikiText (Merity et al. 2016, arXiv:1609.07843); ` = = Part = = ` is none."""


def read_plain_text(text: str, path: Path, name: str, documents: str) -> Table:
    """Column `text`, one row per line, paragraph (blank lines between), heading or file.

    Raises DataError when documents begin with headings and there is none.
    """
    lines = list(numbered_lines(text))
    if documents == "heading" and not any(HEADING.fullmatch(line) for _, line in lines):
        do = "Write data.documents: paragraph, line or file."
        raise DataError(str(path), "lines like ` = Title = `", "none", do)
    cut = list(_cut(lines, documents))
    columns = {"text": ["\n".join(line for _, line in part) for part in cut]}
    return table_of(name, columns, [part[0][0] for part in cut], [])


def _cut(lines: list[tuple[int, str]], documents: str) -> Iterator[list[tuple[int, str]]]:
    """The lines of each document, without blank ones at its ends."""
    part: list[tuple[int, str]] = []
    blanks: list[tuple[int, str]] = []
    for number, line in lines:
        if not line.strip():
            blanks.append((number, line))
            continue
        begins = documents == "line" or (documents == "heading" and HEADING.fullmatch(line) is not None)
        if part and (begins or (documents == "paragraph" and blanks)):
            yield part
            part = []
        part += [*blanks, (number, line)] if part else [(number, line)]
        blanks = []
    if part:
        yield part
