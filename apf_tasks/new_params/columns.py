"""The columns of a source, and how well their content fits what a family asks for.

A fit is (points, why). Points above 0 (up to 20) make a column acceptable whatever its name; with 0 it needs a name
that is usual; below 0 it needs the very name. None: it cannot be that column.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from apf_tasks.families import Family
from apf_tasks.ingestion import FILE_COLUMN, plain
from apf_tasks.new_params.names import language_of
from apf_tasks.reading import Table
from apf_tasks.words import is_unspaced

SAMPLE = 1000
"""Values of a column that its content is judged by, evenly over all rows."""
MOST_LABELS = 100
LONG_LABEL = 60
"""Characters on average that are too many for a label."""
SEPARATORS = (",", ";", "|", "/")
NESTED_KEYS = 12
FILE_LABELS = range(2, 21)

Fit = tuple[float, str] | None


class Scale(NamedTuple):
    """Numbers in a column."""

    low: float
    high: float
    distinct: int
    whole: bool


@dataclass(frozen=True)
class Column:
    """One column over all files."""

    name: str | int
    """As `data.columns` says it."""
    title: str
    values: list[Any]
    """As ingestion gives them: text, None, or lists and objects."""

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
        numbers = [number for value in self.counts if (number := _number(value)) is not None]
        if self.kind != "number" or len(numbers) < len(self.counts):
            return None
        return Scale(min(numbers), max(numbers), len(set(numbers)), all(n.is_integer() for n in numbers))

    @cached_property
    def is_prose(self) -> bool:
        """Whether people wrote it for people: not names, numbers or addresses, not one phrase with something in it."""
        if self.kind == "words":
            return sum(" " in str(item) or is_unspaced([str(item)]) for v in self.sample for item in v[:3]) > 0
        spaced = sum(" " in text.strip() for text in self.texts) >= len(self.texts) / 10
        start = os.path.commonprefix(self.texts[:50]) if len(self.texts) > 2 else ""
        phrase = len(start) >= max(8.0, self.length * 0.3)
        return self.kind == "text" and len(self.counts) > 1 and (spaced or is_unspaced(self.texts)) and not phrase

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
        return text_in(value["content"] if "content" in value else list(value.values()))
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
            values += map(plain, there)
        found.append(Column(name if header else at, name, values))
        found += _nested(found[-1])
    files = {table.name: len(table.numbers) for _, table in tables}
    if len({role for role, _ in tables}) == 1 and len(files) in FILE_LABELS:
        found.append(Column(FILE_COLUMN, FILE_COLUMN, [name for name, count in files.items() for _ in range(count)]))
    return found


def _nested(column: Column) -> list[Column]:
    """Columns `a.b` for the keys of objects in column a."""
    if column.kind != "object":
        return []
    keys = list(dict.fromkeys(key for value in column.sample if isinstance(value, dict) for key in value))
    if len(keys) > NESTED_KEYS:
        return []
    inner = {key: [plain(v.get(key)) if isinstance(v, dict) else None for v in column.values] for key in keys}
    return [Column(f"{column.title}.{key}", f"{column.title}.{key}", values) for key, values in inner.items()]


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text" if _number(value) is None else "number"
    if isinstance(value, list):
        return "words" if all(isinstance(item, (str, int)) for item in value) else "list"
    return "object"


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def separator_of(column: Column) -> str | None:
    """What stands between several labels in one cell, when a few labels make up many cells."""
    for separator in SEPARATORS:
        several = sum(separator in text for text in column.texts)
        parts = Counter(part.strip() for text in column.texts for part in text.split(separator))
        short = sum(map(len, parts)) <= 25 * len(parts)
        if several * 10 >= len(column.texts) and short and len(parts) <= min(MOST_LABELS, len(column.texts) / 3):
            return separator
    return None


def label(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """One of a few values."""
    count, scale = len(column.counts), column.scale
    if column.name == FILE_COLUMN:
        return 8, f"one value per file, {count} files"
    if column.kind not in ("text", "number") or count < 2 or column.length > LONG_LABEL:
        return None
    if (scale and not scale.whole and count > 10) or count > max(20, len(column.values) / 2):
        return None
    few = count <= min(MOST_LABELS, max(2, len(column.values) / 4))
    several = separator_of(column) is not None
    return (20 - count / 10 if few and not several else -1 if several else 0), f"{count} different values"


def labels(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of labels, or several of them in a cell."""
    distinct = {str(item) for value in column.sample if isinstance(value, list) for item in value}
    if column.kind == "words" and 2 <= len(distinct) <= max(MOST_LABELS, len(column.sample) / 2):
        return 15, f"lists of {len(distinct)} different values"
    separator = separator_of(column) if column.kind == "text" else None
    return (10, f"several values in a cell, {separator!r} between them") if separator else None


def score(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Numbers on a scale."""
    scale = column.scale
    counted = scale and scale.whole and scale.distinct == len(column.values)
    if scale is None or scale.distinct < 3 or counted:
        return None
    points = 15 if scale.distinct > 20 or not scale.whole else 1
    return points, f"numbers from {scale.low:g} to {scale.high:g}, {scale.distinct} different ones"


def prose(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """The longest text."""
    if column.kind == "words" and not any("list of sentences" in what for what in family.columns.values()):
        return None
    if column.kind not in ("text", "words"):
        return None
    if not column.is_prose:
        return -1, "text"
    longest = max((other.length for other in others if other.is_prose), default=1.0)
    if column.length >= longest:
        return 20, f"the longest text, {column.length:.0f} characters on average"
    return 10 + 8 * column.length / longest, f"text, {column.length:.0f} characters on average"


def named_prose(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text that its name alone tells from other text."""
    found = prose(column, family, others)
    return found and (min(0.0, found[0]), found[1])


def short_prose(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text beside longer text."""
    found = prose(column, family, others)
    return found and (found[0] / 2, f"text, {column.length:.0f} characters on average")


def question(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text that ends in a question mark."""
    if column.kind != "text":
        return None
    asking = sum(text.rstrip().endswith(("?", "？")) for text in column.texts) / max(1, len(column.texts))
    return (20 * asking if asking >= 0.3 else 0), f"{asking:.0%} end in a question mark"


def answer(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text that stands in a longer text of its row."""
    if column.kind not in ("text", "number", "words", "object", "list"):
        return None
    best = 0.0
    for other in others:
        if other is not column and other.kind == "text" and column.kind == "text" and other.length > column.length:
            pairs = spread(list(zip(column.values, other.values, strict=True)), 200)
            inside = [v in o for v, o in pairs if isinstance(v, str) and isinstance(o, str)]
            best = max(best, sum(inside) / max(1, len(inside)))
    return (15 * best if best >= 0.5 else 0), f"{best:.0%} stand in a longer text" if best else "answers"


def tokens(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of many different words."""
    distinct = len({str(item) for value in column.sample if isinstance(value, list) for item in value})
    if column.kind == "words" and not all(str(i).isdecimal() for v in column.sample[:20] for i in v):
        return min(20.0, 5 + distinct / 100), f"lists of words, {distinct:,} different ones"
    return (0, "words with blanks between") if column.kind == "text" and column.is_prose else None


def tags(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of few different values; or the same as text with blanks between."""
    cells = [v if isinstance(v, list) else v.split() for v in column.sample if isinstance(v, (list, str))]
    distinct = {str(item) for cell in cells for item in cell}
    if column.kind not in ("words", "text") or len(distinct) > MOST_LABELS:
        return None
    return (15 if column.kind == "words" else 0), f"lists of {len(distinct)} different values"


def spans(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of [start, end, type], or of objects with these."""
    inner = [item for value in column.sample if isinstance(value, list) for item in value]
    like = [isinstance(item, dict) or (isinstance(item, list) and len(item) == 3) for item in inner]
    return (15, "lists of start, end and type") if like and all(like) else None


def messages(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of objects with a role."""
    first = [value[0] for value in column.sample if isinstance(value, list) and value]
    good = first and all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in first)
    return (20, "lists of {role, content}") if good else None


def _of_kind(*kinds: str) -> Callable[[Column, Family, Sequence[Column]], Fit]:
    return lambda column, family, others: (0, "") if column.kind in kinds else None


FITS: Mapping[str, Callable[[Column, Family, Sequence[Column]], Fit]] = {
    "label": label,
    "labels": labels,
    "score": score,
    "tokens": tokens,
    "tags": tags,
    "spans": spans,
    "text_pair": named_prose,
    "summary": short_prose,
    "highlights": short_prose,
    "prompt": named_prose,
    "response": named_prose,
    "question": question,
    "answer": answer,
    "answers": _of_kind("object", "list", "words"),
    "messages": messages,
    "system": named_prose,
    "answer_start": _of_kind("number"),
    "translation": _of_kind("object"),
    "compounds": _of_kind("list", "words"),
    "is_impossible": label,
}
"""A family's column -> how content fits it. Columns not named here hold prose."""
