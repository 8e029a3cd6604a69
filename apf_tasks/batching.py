"""Batches of near-equal length: the order of an epoch, the cut into forward passes, and collation.

B examples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.families import IGNORE_INDEX

POOL_BATCHES = 50
"""Rows are sorted by length within pools of this many batches: wide enough to find one's like, and still random."""


class Examples:
    """Token columns, cut into batches on demand."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.columns = [name for name in self.table.column_names if name != "truncated"]
        self.lengths = self._column("input_ids").value_lengths().to_numpy(zero_copy_only=False)
        """Tokens per example."""
        self.targets = self._targets()
        """Labels per example that count in the loss."""

    @classmethod
    def of(cls, split: TokenizedSplit) -> Examples:
        """The examples of a split, memory-mapped: nothing is copied before a batch needs it."""
        with pa.memory_map(str(split.path / "tokens.arrow")) as source:
            return cls(pa.ipc.open_file(source).read_all())

    def __len__(self) -> int:
        return len(self.lengths)

    def _column(self, name: str) -> Any:
        return self.table.column(name).combine_chunks()

    def _targets(self) -> np.ndarray:
        labels = self._column("labels")
        counts = (labels.flatten().to_numpy(zero_copy_only=False) != IGNORE_INDEX).astype(np.int64)
        ends = np.cumsum(labels.value_lengths().to_numpy(zero_copy_only=False))
        sums = np.concatenate([[0], np.cumsum(counts)])
        return np.asarray(np.diff(sums[np.concatenate([[0], ends])]))

    def collate(self, indices: np.ndarray, pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
        """The examples as one padded batch on `device`: each column (B, T), labels filled with IGNORE_INDEX."""
        rows = self.table.take(pa.array(indices))
        batch = {}
        for name in self.columns:
            fill = {"input_ids": pad_id, "labels": IGNORE_INDEX}.get(name, 0)
            batch[name] = pad(rows.column(name).to_pylist(), fill).to(device)
        lengths = torch.from_numpy(self.lengths[indices].astype(np.int64)).to(device)
        positions = torch.arange(batch["input_ids"].shape[1], device=device)
        batch["attention_mask"] = (positions[None, :] < lengths[:, None]).long()  # (B, T)
        return batch


def pad(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Lists of numbers -> (B, longest), filled up on the right."""
    padded = np.full((len(rows), max(len(row) for row in rows)), fill, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


def epoch_order(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The steps of an epoch: index arrays of `batch_size` rows (the last may be smaller), of similar length each.

    A function of its arguments alone, so that the step number is the whole data position.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    pool = batch_size * POOL_BATCHES
    steps: list[np.ndarray] = []
    for start in range(0, len(shuffled), pool):
        rows = shuffled[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        steps += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [steps[i] for i in random.permutation(len(steps))]


def micro_batches(indices: np.ndarray, lengths: np.ndarray, max_padded_tokens: int) -> list[np.ndarray]:
    """Cut rows, longest first, into forward passes of at most `max_padded_tokens` (one row at least)."""
    longest_first = indices[np.argsort(-lengths[indices], kind="stable")]
    cuts: list[np.ndarray] = []
    start = 0
    while start < len(longest_first):
        rows = max(1, max_padded_tokens // max(1, int(lengths[longest_first[start]])))
        cuts.append(longest_first[start : start + rows])
        start += rows
    return cuts


def token_table(columns: dict[str, list[Any]]) -> pa.Table:
    """Token columns of equal length as an Arrow table: lists of int32, and the flag `truncated`."""
    types = {name: pa.bool_() if name == "truncated" else pa.list_(pa.int32()) for name in columns}
    return pa.table({name: pa.array(values, type=types[name]) for name, values in columns.items()})


def save_tokens(columns: dict[str, list[Any]], path: Path) -> None:
    """Write token columns as an Arrow file that `Examples.of` maps."""
    table = token_table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
