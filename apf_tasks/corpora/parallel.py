"""Two or more files whose lines belong together: a text and its translations."""

from __future__ import annotations

from collections.abc import Mapping

from apf_tasks.corpora.table import Table, numbered_lines, table_of
from apf_tasks.errors import DataError


def read_parallel(texts: Mapping[str, str], name: str) -> Table:
    """One column per side, one row per line; None where a side is blank. Raises DataError for other line counts."""
    sides = {side: [line for _, line in numbered_lines(text)] if text else [] for side, text in texts.items()}
    counts = {side: len(lines) for side, lines in sides.items()}
    shortest = min(counts.values())
    if max(counts.values()) != shortest:
        found = " and ".join(f"{count:,} in {side!r}" for side, count in counts.items())
        ended = ", ".join(side for side, count in counts.items() if count == shortest)
        do = f"Line {shortest + 1:,} is the first without a counterpart ({ended} has ended); look above for a lost one."
        raise DataError(name, "as many lines on every side", found, do)
    columns = {side: [line if line.strip() else None for line in lines] for side, lines in sides.items()}
    return table_of(name, columns, list(range(1, shortest + 1)), [])
