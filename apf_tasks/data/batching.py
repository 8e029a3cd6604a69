"""The order of an epoch, the cut of its steps into forward passes, and collation.

B examples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from apf_tasks.examples import IGNORE_INDEX, Columns

PASS_TOKENS = 64
"""What a forward and backward pass costs beside its tokens, in tokens."""


def collate(columns: Columns, pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The examples as one padded batch on `device`: each column (B, T), labels filled with IGNORE_INDEX."""
    fills = {"input_ids": pad_id, "labels": IGNORE_INDEX}
    batch = {name: pad(values, fills.get(name, 0)).to(device) for name, values in columns.items()}
    lengths = torch.tensor([len(ids) for ids in columns["input_ids"]], device=device)
    positions = torch.arange(batch["input_ids"].shape[1], device=device)
    batch["attention_mask"] = (positions[None, :] < lengths[:, None]).long()  # (B, T)
    return batch


def pad(rows: Sequence[Sequence[float]], fill: int) -> torch.Tensor:
    """Lists of numbers -> (B, longest), filled up on the right."""
    kind: Any = np.float32 if any(isinstance(value, float) for row in rows for value in row[:1]) else np.int64
    padded = np.full((len(rows), max(len(row) for row in rows)), fill, dtype=kind)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


def epoch_order(rows: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The steps of an epoch: index arrays of `batch_size` rows at random, the last may be smaller.

    Never of like length: in a step of short rows alone each of their few tokens would weigh as much as many of
    another's. A function of its arguments alone, so that the step number is the whole data position.
    """
    shuffled = np.random.default_rng([seed, epoch]).permutation(rows)
    return [shuffled[at : at + batch_size] for at in range(0, rows, batch_size)]


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


def cut_by_tokens(lengths: np.ndarray, most: int) -> list[np.ndarray]:
    """Positions of the rows of a step in passes of at most `most` tokens (one row at least): first fit, longest first.

    Johnson 1973, Near-optimal bin packing algorithms: at most 11/9 of the fewest passes, plus 6/9.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        at = next((at for at, free in enumerate(room) if free >= length), None)
        if at is None:
            at = len(passes)
            passes.append([])
            room.append(most)
        passes[at].append(row)
        room[at] -= length
    return [np.array(one) for one in passes]


def cut_by_length(lengths: np.ndarray, most: int) -> list[np.ndarray]:
    """The same in passes that are padded to their longest row: those with the least padding of all such cuts.

    A pass counts as PASS_TOKENS more, for what it costs beside its tokens. Dynamic programming over the rows by their
    length: the best cut of the first n rows ends with one of the passes that `most` allows.
    """
    order = np.argsort(-lengths, kind="stable")
    longest = np.maximum(1, lengths[order]).astype(np.int64)
    cost, begins = np.zeros(len(order) + 1, np.int64), np.zeros(len(order) + 1, np.int64)
    for end in range(1, len(order) + 1):
        firsts = np.arange(end)
        padded = (end - firsts) * longest[:end]
        allowed = (padded <= most) | (firsts == end - 1)
        total = np.where(allowed, cost[:end] + padded + PASS_TOKENS, np.iinfo(np.int64).max)
        begins[end] = total.argmin()
        cost[end] = total[begins[end]]
    passes: list[np.ndarray] = []
    end = len(order)
    while end:
        passes.insert(0, order[begins[end] : end])
        end = int(begins[end])
    return passes
