"""The columns of a source that a family asks for: by name or number, joined by a template, or several 0/1 columns."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from apf_tasks.errors import DataError
from apf_tasks.family import Family
from apf_tasks.params.data import ColumnSource, DataParams
from apf_tasks.sources.formats.table import Table

FILE_COLUMN = "$file"
"""A column that every source has: the name of the file that a row is from."""
TEMPLATE = re.compile(r"\{([^{}]+)\}")
"""A column in a template, `{subject}`."""
YES, NO = ("1", "true", "yes"), ("0", "false", "no")
"""What cells of columns that stand for a label each may hold."""


def wanted_columns(table: Table, data: DataParams, kind: Family) -> list[str]:
    """The columns of the family that are read: those it asks for, and the optional ones that there are."""
    taken = {source for wanted in data.columns.values() for source in _sources(wanted, table)}
    own = [name for name in kind.optional if name in data.columns or (name in table.columns and name not in taken)]
    optional = [*own, *(name for name in ("group", "time") if name in data.columns or name in table.columns)]
    return list(dict.fromkeys((*_asked(table, data, kind), *optional)))


def unused_columns(table: Table, data: DataParams, kind: Family) -> list[str]:
    """The columns of the source that are not read."""
    names = [*wanted_columns(table, data, kind), *(["id"] if "id" in data.columns else [])]
    read = {source for name in names for source in _sources(data.columns.get(name, name), table)}
    titles = {table.columns[name] if isinstance(name, int) else name for name in read}
    titles |= {str(name).partition(".")[0] for name in titles}
    return [name for name in table.columns if name not in titles]


def read_column(table: Table, name: str, data: DataParams, kind: Family) -> list[Any]:
    """The values of the source for `name`, a scalar as text. Raises DataError that names the columns there are."""
    wanted = data.columns.get(name, name)
    sources = _sources(wanted, table)
    values = {source: [to_text(v) for v in _values(table, name, source, data, kind)] for source in sources}
    if isinstance(wanted, tuple):
        titles = {source: table.columns[source] if isinstance(source, int) else source for source in sources}
        flags = zip(*(values[source] for source in sources), strict=True)
        return [_labels_of(dict(zip(titles.values(), row, strict=True))) for row in flags]
    if sources == [wanted]:
        return values[wanted]
    rows = zip(*values.values(), strict=True)
    return [_filled(str(wanted), {str(s): v for s, v in zip(sources, row, strict=True)}) for row in rows]


def _sources(wanted: ColumnSource, table: Table) -> list[str | int]:
    """The columns of the source that one of the family is made of."""
    if isinstance(wanted, tuple):
        return list(wanted)
    if isinstance(wanted, str) and wanted not in table.columns and (inside := TEMPLATE.findall(wanted)):
        return list(dict.fromkeys(inside))
    return [wanted]


def _labels_of(cells: Mapping[str, Any]) -> Any:
    """The names of the columns that say yes; the cells themselves, which are no labels, where one says neither."""
    said = {name: "0" if cell is None else str(cell).strip().lower() for name, cell in cells.items()}
    if not all(value in (*YES, *NO) for value in said.values()):
        return dict(cells)
    return [name for name, value in said.items() if value in YES]


def _filled(template: str, cells: Mapping[str, Any]) -> str | None:
    """The template with the cells of a row; lines in which all cells are empty fall away."""
    lines: list[str] = []
    for line in template.split("\n"):
        inside = [cells[name] for name in TEMPLATE.findall(line)]
        if not inside or any(cell is not None for cell in inside):
            lines.append(TEMPLATE.sub(lambda found: _shown(cells[found[1]]), line).strip())
    return "\n".join(lines) if any(cell is not None for cell in cells.values()) else None


def _shown(cell: Any) -> str:
    return "" if cell is None else cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def _asked(table: Table, data: DataParams, kind: Family) -> list[str]:
    """The first of the family's sets of columns that the table has; else the one it has most of."""
    sets = [list(names) for names in (kind.columns, *kind.alternatives)]

    def there(name: str) -> bool:
        return all(_is_there(source, table) for source in _sources(data.columns.get(name, name), table))

    return max(sets, key=lambda names: (sum(map(there, names)) / len(names), sum(n in data.columns for n in names)))


def _is_there(source: str | int, table: Table) -> bool:
    if isinstance(source, int):
        return 0 <= source < len(table.columns)
    return source == FILE_COLUMN or source in table.columns or source.partition(".")[0] in table.columns


def _values(table: Table, name: str, wanted: str | int, data: DataParams, kind: Family) -> Sequence[Any]:
    """The values of one column of the source, which `name` is read from."""
    if wanted == FILE_COLUMN:
        return [table.name] * len(table.numbers)
    if isinstance(wanted, int) and 0 <= wanted < len(table.columns):
        return table.values(wanted)
    if str(wanted) in table.columns:
        if table.columns.count(str(wanted)) > 1:
            do = f"Write its number instead: data.columns: {{{name}: {table.columns.index(str(wanted))}}}."
            raise DataError(table.name, f"one column {wanted!r}", "several", do)
        return table.values(table.columns.index(str(wanted)))
    outer, dot, inner = str(wanted).partition(".")
    if dot and outer in table.columns:  # a mapping in a column, as data sets for translation have it
        found = table.values(table.columns.index(outer))
        return [value.get(inner) if isinstance(value, dict) else None for value in found]
    near = difflib.get_close_matches(str(wanted), table.columns, n=1, cutoff=0.5)
    do = f"Write data.columns: {{{name}: {near[0] if near else 'NAME OR NUMBER'}}}."
    if len(table.columns) == 1 and data.delimiter is None:
        do = f"If the file is a table, write data.delimiter: what stands between its cells. {do}"
    resolved = {n: what for names in (kind.optional, *kind.alternatives, kind.columns) for n, what in names.items()}
    expected = f"a column {wanted!r}" + (f" ({resolved[name]})" if name in resolved else "")
    raise DataError(table.name, expected, "the columns " + (", ".join(table.columns) or "(none)"), do)


def to_text(value: Any) -> Any:
    """A scalar as text, missing as None: 1, 1.0 and "1" are one label, though a gap makes pandas write 1.0.

    Lists and objects stay as they are.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None or isinstance(value, (list, dict)):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if math.isnan(value) else str(int(value)) if value.is_integer() else repr(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
