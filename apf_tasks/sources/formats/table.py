"""What every reader of a file gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True)
class Table:
    """The rows of one file. Missing values are None."""

    name: str
    columns: tuple[str, ...]
    numbers: list[int]
    """Of each row: the line where it starts in a text file, else its number from 1. No number comes twice."""
    rejected: list[Rejected]
    values: Callable[[int], list[Any]]
    """Number of a column -> its values; read when asked for, as a wide file may have many that nobody wants."""
    left_out: Sequence[Rejected] = ()
    """What is in the file and no row: empty lines, the header once more, annotations that were refused."""


def table_of(name: str, columns: Mapping[str, list[Any]], numbers: list[int], rejected: list[Rejected]) -> Table:
    """A table whose columns are in memory."""
    values = list(columns.values())
    return Table(name, tuple(columns), numbers, rejected, lambda i: values[i])


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end). Only line feeds end a line: a text may hold U+2028 and its like."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        yield number, line.removesuffix("\r")


def half_a_pair(value: Any) -> str:
    """Why a value out of JSON holds no valid Unicode text, or "": JSON can write one half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "half of a surrogate pair: no valid Unicode text"
    return ""
