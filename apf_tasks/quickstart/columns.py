"""The columns of a source, as ingestion reads them, and what can be said about each from its values."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from apf_tasks.data.columns import FILE_COLUMN, to_text
from apf_tasks.quickstart.names import language_of, number_in
from apf_tasks.quickstart.source import is_no_data
from apf_tasks.sources.formats.table import Table
from apf_tasks.words import is_unspaced

SAMPLE = 1000
"""Values of a column that its content is judged by, evenly over all rows."""
MOST_LABELS = 100
LONG_LABEL = 60
"""Characters on average that are too many for a label."""
SEPARATORS = (",", ";", "|", "/")
NESTED_KEYS = 12
FILE_LABELS = range(2, 21)


class Scale(NamedTuple):
    """Numbers in a column."""

    low: float
    high: float
    distinct: int
    whole: bool


@dataclass(frozen=True, eq=False)
class Column:
    """One column over all files."""

    name: str | int | tuple[str | int, ...]
    """As `data.columns` says it."""
    title: str
    values: list[Any]
    """As ingestion gives them: text, None, or lists and objects."""
    derived: bool = False
    """Whether it is made of other columns, or of a part of one."""

    @cached_property
    def sample(self) -> list[Any]:
        """Values that are there, at most SAMPLE."""
        return [value for value in spread(self.values) if value is not None]

    @cached_property
    def kind(self) -> str:
        """`empty`, `number`, `text`, `words` (lists of scalars), `list`, or `object`: what most values are."""
        kinds = Counter(map(_kind, self.sample))
        return kinds.most_common(1)[0][0] if kinds else "empty"

    @cached_property
    def texts(self) -> list[str]:
        """The text in every value of the sample."""
        return [text_in(value) for value in self.sample]

    @cached_property
    def counts(self) -> Counter[str]:
        """Text values and how often each occurs in all rows."""
        return Counter(value.strip() for value in self.values if isinstance(value, str))

    @cached_property
    def items(self) -> Counter[str]:
        """What stands in the lists of the sample, or between separators."""
        if self.kind == "text" and (separator := separator_of(self)):
            return Counter(part.strip() for text in self.texts for part in text.split(separator))
        lists = self.sample if self.kind == "words" else []
        return Counter(str(item) for value in lists if isinstance(value, list) for item in value)

    @cached_property
    def length(self) -> float:
        """Mean characters."""
        return sum(map(len, self.texts)) / max(1, len(self.texts))

    @cached_property
    def language(self) -> str:
        """Code of the language of its texts."""
        return language_of(self.texts)

    @cached_property
    def scale(self) -> Scale | None:
        """The numbers, when all values are."""
        numbers = [number for value in self.counts if (number := number_in(value)) is not None]
        if self.kind != "number" or len(numbers) < len(self.counts):
            return None
        return Scale(min(numbers), max(numbers), len(set(numbers)), all(n.is_integer() for n in numbers))

    @property
    def is_flag(self) -> bool:
        """Whether it says yes or no to something, as 1 and 0."""
        return not self.derived and set(self.counts) == {"0", "1"} and None not in self.values

    @cached_property
    def is_prose(self) -> bool:
        """Whether people wrote it for people: not names, numbers or addresses."""
        if self.kind == "words":
            return sum(" " in str(item) or is_unspaced([str(item)]) for v in self.sample for item in v[:3]) > 0
        spaced = sum(" " in text.strip() for text in self.texts) >= len(self.texts) / 10
        return self.kind == "text" and len(self.counts) > 1 and (spaced or is_unspaced(self.texts))

    @cached_property
    def is_phrase(self) -> bool:
        """Whether all texts begin alike, as addresses and notices of sources do."""
        first, last = (min(self.texts[:50]), max(self.texts[:50])) if len(self.texts) > 2 else ("", "")
        alike = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))))
        return alike >= max(8.0, self.length * 0.3)

    @property
    def few(self) -> Counter[str]:
        """The values, or what stands in the lists, with how often each occurs; empty when there are many."""
        found = self.items or self.counts
        most = MOST_LABELS if self.kind == "words" else min(MOST_LABELS, len(self.values) / 2)
        short = sum(map(len, found)) <= LONG_LABEL * len(found)
        return found if found and len(found) <= most and short else Counter()

    def examples(self, count: int = 3, length: int = 60) -> list[str]:
        """Different values on one line each, cut to `length` characters."""
        shown = (one_line(value if isinstance(value, str) else as_json(value), length) for value in self.sample)
        return list(dict.fromkeys(text for text in shown if text))[:count]


def spread(values: Sequence[Any], most: int = SAMPLE) -> list[Any]:
    """At most `most` of the values, evenly over all."""
    step = max(1, math.ceil(len(values) / most))
    return list(values[::step])


def as_json(value: Any) -> str:
    """A list or an object to look at."""
    return json.dumps(value, ensure_ascii=False, default=str)


def one_line(text: str, length: int) -> str:
    """The text without line ends and without what cannot be printed, cut."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def text_in(value: Any) -> str:
    """All text in a value: messages by their content, lists by their items."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return text_in(next((value[key] for key in ("content", "value") if key in value), list(value.values())))
    if isinstance(value, list):
        parts = list(map(text_in, value))
        return ("" if is_unspaced(parts) else " ").join(parts)
    return ""


def columns_of(tables: Sequence[tuple[str, Table]], header: bool) -> list[Column]:
    """The columns of all tables together, what objects in them have, and `$file` when there are a few files."""
    names = list(dict.fromkeys(name for _, table in tables for name in table.columns))
    found: list[Column] = []
    for at, name in enumerate(names):
        values: list[Any] = []
        for _, table in tables:
            there = table.values(table.columns.index(name)) if name in table.columns else [None] * len(table.numbers)
            values += map(to_text, there)
        found.append(Column(name if header else at, name, values))
        found += _nested(found[-1])
    if len(flags := [column for column in found if column.is_flag]) > 1:
        titles = [column.title for column in flags]
        rows = zip(*(column.values for column in flags), strict=True)
        values = [[title for title, cell in zip(titles, row, strict=True) if cell == "1"] for row in rows]
        found.append(Column(tuple(column.name for column in flags), ", ".join(titles), values, derived=True))  # type: ignore[misc]
    files = {table.name: len(table.numbers) for _, table in tables}
    if len({role for role, _ in tables}) == 1 and len(files) in FILE_LABELS:
        by_row = [None if is_no_data(name) else name for name, count in files.items() for _ in range(count)]
        found.append(Column(FILE_COLUMN, FILE_COLUMN, by_row))
    return found


def _nested(column: Column) -> list[Column]:
    """Columns `a.b` for the keys of objects in column a."""
    if column.kind != "object":
        return []
    keys = dict.fromkeys(key for value in column.sample if isinstance(value, dict) for key in value)
    inner = [[to_text(v.get(key)) if isinstance(v, dict) else None for v in column.values] for key in keys]
    names = [f"{column.title}.{key}" for key in keys]
    return [Column(name, name, values, derived=True) for name, values in zip(names, inner, strict=True)][:NESTED_KEYS]


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text" if number_in(value) is None else "number"
    if isinstance(value, list):
        return "words" if all(isinstance(item, (str, int)) for item in value) else "list"
    return "object"


def separator_of(column: Column) -> str | None:
    """What stands between several labels in one cell, when a few labels make up many cells.

    Of `Sci/Tech`, neither part stands in another cell: that is one label.
    """
    for separator in SEPARATORS:
        cells = [[part.strip() for part in text.split(separator)] for text in column.texts]
        parts = Counter(part for cell in cells for part in cell)
        several = {tuple(cell) for cell in cells if len(cell) > 1}
        uses = Counter(part for cell in set(map(tuple, cells)) for part in set(cell))
        shared = sum(any(uses[part] > 1 for part in cell) for cell in several)
        often = sum(len(cell) > 1 for cell in cells) * 10 >= len(cells)
        few = len(parts) <= min(MOST_LABELS, len(cells) / 3) and sum(map(len, parts)) <= 25 * len(parts)
        if several and often and few and shared * 2 > len(several):
            return separator
    return None
