"""Two or more files whose lines belong together: a text and its translations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from apf_tasks.errors import DataError, SourceError
from apf_tasks.params.data import DataParams
from apf_tasks.sources.formats.table import Table, numbered_lines, table_of

BRACES = re.compile(r"\{([^{}/]*,[^{}/]*)\}")


def sides(source: str, data: DataParams) -> dict[str, str]:
    """Side -> its source, for line-aligned files: `train.{en,zh}` -> en, zh. Empty for any other source.

    Raises SourceError when the format needs sides and there are none.
    """
    braces = BRACES.search(source) if data.format in ("auto", "parallel") else None
    if braces and not Path(source).exists():
        names = [name.strip() for name in braces[1].split(",")]
        if all(names) and len(set(names)) == len(names):
            return {name: source[: braces.start()] + name + source[braces.end() :] for name in names}
    elif data.format != "parallel":
        return {}
    do = "For example: corpus/train.{en,zh} for corpus/train.en and corpus/train.zh."
    raise SourceError(f"data.source {source}", "two or more different names in braces", "none", do)


def check_counterparts(files: Mapping[str, Sequence[Path]], source: str) -> None:
    """Raises SourceError when a file of one side has no counterpart on another, going by the names."""
    kept = [[_without(side, path.name) for path in paths] for side, paths in files.items()]
    # the names of single files say nothing: the user has paired them
    if any(len(names) != len(kept[0]) or (len(names) > 1 and names != kept[0]) for names in kept):
        found = " and ".join(", ".join(path.name for path in paths[:5]) for paths in files.values())
        do = "Give every file its counterpart."
        raise SourceError(f"data.source {source}", "the same files on every side", found, do)


def _without(side: str, name: str) -> str:
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(side)}(?![A-Za-z0-9])", "", name)


def read_parallel(texts: Mapping[str, str], name: str) -> Table:
    """One column per side, one row per line; None where a side is blank. Raises DataError for other line counts."""
    sides = {side: [line for _, line in numbered_lines(text)] if text else [] for side, text in texts.items()}
    counts = {side: len(lines) for side, lines in sides.items()}
    shortest = min(counts.values())
    if max(counts.values()) != shortest:
        found = " and ".join(f"{count:,} in {side!r}" for side, count in counts.items())
        ended = ", ".join(side for side, count in counts.items() if count == shortest)
        do = f"Line {shortest + 1:,} is the first without a counterpart ({ended} has ended); check the lines before."
        raise DataError(name, "as many lines on every side", found, do)
    columns = {side: [line if line.strip() else None for line in lines] for side, lines in sides.items()}
    return table_of(name, columns, list(range(1, shortest + 1)), [])
