"""Batches of near-equal length: the order of an epoch, the cut into forward passes, and collation.

B examples (or sequences of several), T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from apf_tasks.examples import IGNORE_INDEX, Columns

POOL_BATCHES = 50
"""Rows are sorted by length within pools of this many batches: wide enough to find one's like, and still random."""


def collate(columns: Columns, pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The examples as one padded batch on `device`: each column (B, T), labels filled with IGNORE_INDEX."""
    fills = {"input_ids": pad_id, "labels": IGNORE_INDEX}
    batch = {name: pad(values, fills.get(name, 0)).to(device) for name, values in columns.items()}
    lengths = torch.tensor([len(ids) for ids in columns["input_ids"]], device=device)
    positions = torch.arange(batch["input_ids"].shape[1], device=device)
    batch["attention_mask"] = (positions[None, :] < lengths[:, None]).long()  # (B, T)
    return batch


def collate_packed(
    columns: Columns, sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Examples behind each other in B sequences: positions restart with each, and there is no attention mask.

    A model that finds restarting positions and no mask attends within an example alone. (transformers does so in its
    mask functions; `supports_packing` in loop.py tries it.) What fills a sequence up counts as an example of its own.
    """
    longest = max(sum(len(columns["input_ids"][i]) for i in sequence) for sequence in sequences)
    joined: Columns = {name: [] for name in (*columns, "position_ids")}
    for sequence in sequences:
        for name, values in columns.items():
            joined[name].append([token for i in sequence for token in values[i]])
        positions = [p for i in sequence for p in range(len(columns["input_ids"][i]))]
        joined["position_ids"].append(positions + list(range(longest - len(positions))))
    fills = {"input_ids": pad_id, "labels": IGNORE_INDEX}
    return {name: pad(values, fills.get(name, 0)).to(device) for name, values in joined.items()}


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions of `lengths` put into sequences of at most `capacity` tokens: first fit, longest first.

    Johnson 1973, Near-optimal bin packing algorithms: at most 11/9 of the fewest sequences, plus 6/9.
    """
    sequences: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = next((s for s, free in enumerate(room) if free >= lengths[i]), None)
        if at is None:
            sequences.append([i])
            room.append(capacity - lengths[i])
        else:
            sequences[at].append(i)
            room[at] -= lengths[i]
    return sequences


def pad(rows: Sequence[Sequence[float]], fill: int) -> torch.Tensor:
    """Lists of numbers -> (B, longest), filled up on the right."""
    kind: Any = np.float32 if any(isinstance(value, float) for row in rows for value in row[:1]) else np.int64
    padded = np.full((len(rows), max(len(row) for row in rows)), fill, dtype=kind)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


def epoch_order(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, packed: bool = False) -> list[np.ndarray]:
    """The steps of an epoch: index arrays of `batch_size` rows (the last may be smaller), of similar length each.

    Rows that are packed need no like beside them: their order is random, so no step is of short rows alone, whose few
    tokens would weigh as much as the many of another. A function of its arguments alone, so that the step number is the
    whole data position.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    if packed:
        return [shuffled[i : i + batch_size] for i in range(0, len(shuffled), batch_size)]
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
