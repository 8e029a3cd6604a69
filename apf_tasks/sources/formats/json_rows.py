"""JSON: one object per line, an array of objects, or a file of questions in the shape of SQuAD."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from apf_tasks.errors import DataError
from apf_tasks.sources.formats.annotations import plain_row
from apf_tasks.sources.formats.squad import is_squad, read_squad
from apf_tasks.sources.formats.table import Rejected, Table, half_a_pair


def read_jsonl(text: str, path: Path, name: str) -> Table:
    """One object per line. Raises DataError for an array."""
    if text.lstrip().startswith("["):
        do = "Write data.format: json, or one object per line, for example with `jq -c '.[]'`."
        raise DataError(str(path), "one JSON object per line", "one JSON array", do)
    return read_json_lines(text, name)


def read_json_lines(text: str, name: str) -> Table:
    """One value per line; those that are no object are rejected."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return _table(name, ((number, *_parsed(line), _has_escapes(line)) for number, line in lines))


def read_json(text: str, path: Path, name: str, kind: str) -> Table:
    """A file that is one JSON value: rows, counted from 1, or questions. Raises DataError for other values.

    Many a file called `.json` holds one object per line; it is read so.
    """
    value, problem = _parsed(text)
    escapes = _has_escapes(text)
    if problem and kind == "json" and not _parsed(text.lstrip().partition("\n")[0])[1]:
        return read_json_lines(text, name)
    if problem:
        raise DataError(str(path), "one JSON value", problem, "Repair the file, or export it again.")
    if kind == "squad" or is_squad(value):
        return read_squad(value, path, name, escapes)
    if isinstance(value, list):
        return _table(name, ((number, row, "", escapes) for number, row in enumerate(value, start=1)))
    expected = "an array of objects, or an object whose `data` has `paragraphs`"
    found = "an object with " + (", ".join(list(value)[:8]) or "nothing") if isinstance(value, dict) else repr(value)
    raise DataError(str(path), expected, found, "Write an array with one object per row.")


def _table(name: str, found: Iterable[tuple[int, Any, str, bool]]) -> Table:
    """The table of (number, value, what is wrong with its JSON, whether it may hold half a surrogate pair)."""
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    rejected: list[Rejected] = []
    left_out: list[Rejected] = []
    for number, read, problem, escapes in found:
        value, refused = plain_row(read)
        if refused:
            left_out.append(Rejected(name, number, refused))
            continue
        problem = problem or ("" if isinstance(value, dict) else "not a JSON object")
        if problem := problem or (half_a_pair(value) if escapes else ""):
            rejected.append(Rejected(name, number, problem))
            continue
        records.append(value)
        numbers.append(number)
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    return Table(name, columns, numbers, rejected, lambda i: [record.get(columns[i]) for record in records], left_out)


def _parsed(text: str) -> tuple[Any, str]:
    """(value, "" or what is wrong)."""
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        return None, f"not valid JSON: {error}"


def _has_escapes(text: str) -> bool:
    """Whether there are escapes of surrogates; only they can make a text that is no Unicode."""
    return "\\ud" in text.lower()
