"""The order of an epoch and the cut into forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apf_tasks.batching import Examples, epoch_order, micro_batches, token_table


def lengths(count: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).integers(3, 90, count)


def test_every_row_once_an_epoch_in_full_batches() -> None:
    order = epoch_order(lengths(1003), 16, seed=0, epoch=0)
    assert sorted(np.concatenate(order)) == list(range(1003))
    assert sorted(len(rows) for rows in order)[:2] == [11, 16]


def test_the_order_changes_with_epoch_and_seed_and_is_reproducible() -> None:
    orders = [
        np.concatenate(epoch_order(lengths(), 16, seed, epoch)).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert np.concatenate(epoch_order(lengths(), 16, 0, 0)).tolist() == orders[0]


def test_batches_hold_rows_of_similar_length() -> None:
    sizes = lengths()
    padded = sum(int(sizes[rows].max()) * len(rows) for rows in epoch_order(sizes, 16, 0, 0))
    assert padded / sizes.sum() < 1.1


@pytest.mark.parametrize("most", [1, 100, 500, 10**6])
def test_forward_passes_keep_the_token_budget(most: int) -> None:
    sizes = lengths(64)
    cuts = micro_batches(np.arange(64), sizes, most)
    assert sorted(np.concatenate(cuts)) == list(range(64))
    assert all(len(rows) == 1 or int(sizes[rows].max()) * len(rows) <= most for rows in cuts)


def test_collation_fills_on_the_right() -> None:
    columns = {"input_ids": [[5, 6, 7], [8]], "labels": [[1], [-100]], "truncated": [False, True]}
    examples = Examples(token_table(columns))
    batch = examples.collate(np.array([1, 0]), pad_id=9, device=torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[8, 9, 9], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[-100], [1]]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert examples.targets.tolist() == [1, 0]
    assert examples.lengths.tolist() == [3, 1]
