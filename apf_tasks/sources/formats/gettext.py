"""Catalogues of gettext: messages of a program and their translations."""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polib

from apf_tasks.errors import DataError
from apf_tasks.sources.formats.table import Rejected, Table, table_of
from apf_tasks.sources.text_encoding import read_text

logger = logging.getLogger("apf")

UNCLOSED = re.compile(r'\s*(?:msg\w+(?:\[\d+\])?\s*)?"(?:[^"\\]|\\.)*')
Row = tuple[str, str, str | None]
"""Source, target ("" when there is none to use) and context."""


class _Lines(str):
    """A text cut at line feeds alone: str.splitlines, which polib calls, would cut at U+2028 inside a message."""

    __slots__ = ()

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self.split("\n")


def read_catalogue(path: Path, name: str, encoding: str) -> Table:
    """Columns `source`, `target` and `context` of a .po or .mo file.

    Of a message with plural forms, the singular and its first form are a row, the plural and its second another. What
    is untranslated, fuzzy or obsolete is left out and counted. Rows of a .mo file are counted from 1; those of a .po
    file have the line of their msgid or msgid_plural. Raises DataError for a file that is no catalogue.
    """
    rejected: list[Rejected] = []
    declared = polib.detect_encoding(str(path), binary_mode=True) if encoding == "auto" else encoding
    rows: Iterable[tuple[int, Row]]
    if path.suffix.lower() == ".mo":
        rows = enumerate(_compiled(path, declared), start=1)
    else:
        # a catalogue that says UTF-8, or nothing, is read as any other text
        lines = read_text(path, encoding if declared.lower() in ("utf-8", "utf8") else declared).split("\n")
        rows = _written(lines, name, rejected, 0, len(lines))
    columns: dict[str, list[Any]] = {"source": [], "target": [], "context": []}
    numbers: list[int] = []
    left_out = 0
    for number, (source, target, context) in rows:
        if not target.strip():
            left_out += 1
            continue
        numbers.append(number)
        for column, value in zip(columns.values(), (source, target, context), strict=True):
            column.append(value)
    if left_out:
        logger.info("%s: left out %d messages that are untranslated, fuzzy or obsolete", name, left_out)
    return table_of(name, columns, numbers, rejected)


def _rows(entry: Any) -> list[Row]:
    """One row of an entry, or two when it has a plural."""
    if not entry.msgid:
        return []  # a header
    forms = dict(entry.msgstr_plural) if entry.msgid_plural else {0: entry.msgstr}
    if entry.obsolete or "fuzzy" in getattr(entry, "flags", ()):
        forms = dict.fromkeys(forms, "")
    rows = [(entry.msgid, forms.get(0, ""), entry.msgctxt)]
    return [*rows, (entry.msgid_plural, forms[1], entry.msgctxt)] if 1 in forms else rows


def _compiled(path: Path, encoding: str) -> list[Row]:
    try:
        return [row for entry in polib.mofile(str(path), encoding=encoding) for row in _rows(entry)]
    except (OSError, struct.error, ValueError, LookupError) as error:
        found = str(error) or type(error).__name__
        raise DataError(str(path), "a .mo catalogue", found, "Compile it again with msgfmt.") from error


def _written(lines: list[str], name: str, rejected: list[Rejected], start: int, stop: int) -> Iterator[tuple[int, Row]]:
    """(line, row) of lines[start:stop]. A message that cannot be read is rejected, and reading goes on after it."""
    while start < stop:
        try:
            yield from _parsed(lines, start, stop)
            return
        except OSError as error:
            place, _, problem = str(error).rpartition("(line ")[2].partition(")")
        at = start + int(place) - 1
        first = next((i + 1 for i in range(at, start - 1, -1) if not lines[i].strip()), start)
        after = next((i for i in range(at, stop) if not lines[i].strip()), stop)
        yield from _written(lines, name, rejected, start, first)
        rejected.append(Rejected(name, first + 1, problem.lstrip(": ") or "a line that is not part of a message"))
        start = after


def _parsed(lines: list[str], start: int, stop: int) -> list[tuple[int, Row]]:
    """The rows in lines[start:stop]. Raises OSError that ends in `(line N)` or `(line N): reason`."""
    # polib would drop the last letter of the text instead
    if (unclosed := next((i for i in range(start, stop) if UNCLOSED.fullmatch(lines[i])), None)) is not None:
        raise OSError(f"(line {unclosed - start + 1}): a quotation mark that is not closed")
    found = []
    for entry in polib.pofile(_Lines("\n".join(lines[start:stop])), encoding="utf-8"):
        place = start + max(entry.linenum - 1, 0)
        for keyword, row in zip(("msgid", "msgid_plural"), _rows(entry), strict=False):
            mark = re.compile(rf"\s*(#~\s*)?{keyword}\s")
            place = next(i for i in range(place, stop) if mark.match(lines[i]))
            found.append((place + 1, row))
    return found
