"""Tokenized rows (Arrow): what a family's `encode` gives and a batch is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apf_tasks.artifacts import TokenizedSplit

NOT_TOKENS = ("truncated", "row")
"""Columns of one value per example."""


class Examples:
    """Token columns, cut into batches on demand."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.columns = [name for name in self.table.column_names if name not in NOT_TOKENS]
        self.lengths = self._lengths("input_ids")
        """Tokens per example."""
        self.sizes = np.maximum(self.lengths, self._lengths("labels"))
        """What an example costs: its tokens, or its targets where these are a longer sequence of their own."""
        own = np.arange(len(self.lengths))
        self.rows = self._column("row").to_numpy() if "row" in self.table.column_names else own
        """The row that each example is from, ascending."""
        self.with_prompt = np.flatnonzero(self._lengths("prompt")) if "prompt" in self.columns else own[:0]
        """The examples that bring something to be continued."""

    @classmethod
    def of(cls, split: TokenizedSplit) -> Examples:
        """The examples of a split, memory-mapped: nothing is copied before a batch needs it."""
        with pa.memory_map(str(split.path / "tokens.arrow")) as source:
            return cls(pa.ipc.open_file(source).read_all())

    def __len__(self) -> int:
        return len(self.lengths)

    def _column(self, name: str) -> Any:
        return self.table.column(name).combine_chunks()

    def _lengths(self, name: str) -> np.ndarray:
        return np.asarray(self._column(name).value_lengths().to_numpy(zero_copy_only=False))

    def take(self, indices: np.ndarray) -> Columns:
        """The token columns of some examples, one list each."""
        rows = self.table.take(pa.array(indices))
        return {name: rows.column(name).to_pylist() for name in self.columns}


def count_targets(columns: Columns) -> int:
    """Labels that count in the loss."""
    return sum(label != IGNORE_INDEX for labels in columns["labels"] for label in labels)


def select_columns(columns: Columns, indices: Sequence[int]) -> Columns:
    """The same columns for some of the examples."""
    return {name: [values[i] for i in indices] for name, values in columns.items()}


def token_table(columns: Columns) -> pa.Table:
    """Token columns as an Arrow table: lists of int32 (or float32), `truncated` as flags, `row` as numbers."""
    return pa.table({name: pa.array(values, type=_arrow_type(name, values)) for name, values in columns.items()})


def _arrow_type(name: str, values: list[Any]) -> pa.DataType:
    if name in NOT_TOKENS:
        return pa.bool_() if name == "truncated" else pa.int64()
    first = next((value[0] for value in values if len(value)), 0)
    return pa.list_(pa.float32() if isinstance(first, float) else pa.int32())


def save_tokens(columns: Columns, path: Path) -> None:
    """Write token columns as an Arrow file that `Examples.of` maps."""
    write_table(token_table(columns), path)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a token table as such a file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)


IGNORE_INDEX = -100
"""Label of a position that has no target and does not count in the loss."""


Columns = dict[str, list[Any]]
"""Token columns: one list (or number) per example."""
