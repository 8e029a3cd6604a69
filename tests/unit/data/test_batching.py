"""The order of an epoch and the cut into forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apf_tasks.data.batching import collate, collate_packed, epoch_order, micro_batches, pack
from apf_tasks.examples import Examples, count_targets, token_table


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


def test_packed_batches_are_of_all_lengths() -> None:
    sizes = lengths()
    order = epoch_order(sizes, 16, 0, 0, packed=True)
    assert sorted(np.concatenate(order)) == list(range(1000))
    tokens = [int(sizes[rows].sum()) for rows in order if len(rows) == 16]
    alike = [int(sizes[rows].sum()) for rows in epoch_order(sizes, 16, 0, 0) if len(rows) == 16]
    assert np.std(tokens) < 0.3 * np.std(alike), "a step has as many tokens as another"
    assert np.concatenate(order).tolist() != np.concatenate(epoch_order(sizes, 16, 0, 1, packed=True)).tolist()


@pytest.mark.parametrize("most", [1, 100, 500, 10**6])
def test_forward_passes_keep_the_token_budget(most: int) -> None:
    sizes = lengths(64)
    cuts = micro_batches(np.arange(64), sizes, most)
    assert sorted(np.concatenate(cuts)) == list(range(64))
    padded = [int(sizes[rows].max()) * len(rows) for rows in cuts if len(rows) > 1]
    assert max(padded, default=0) <= most, "no forward pass of several rows has more padded tokens"


def test_collation_fills_on_the_right() -> None:
    columns = {"input_ids": [[5, 6, 7], [8]], "labels": [[1], [-100]], "truncated": [False, True]}
    examples = Examples(token_table(columns))
    chosen = examples.take(np.array([1, 0]))
    batch = collate(chosen, pad_id=9, device=torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[8, 9, 9], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[-100], [1]]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert count_targets(chosen) == 1
    assert examples.lengths.tolist() == [3, 1]


def test_packed_examples_restart_their_positions() -> None:
    columns = {"input_ids": [[5, 6, 7], [8], [1, 2]], "labels": [[-100, 6, 7], [-100], [-100, 2]]}
    batch = collate_packed(columns, [[0, 1], [2]], pad_id=9, device=torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [1, 2, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100], [-100, 2, -100, -100]]
    assert "attention_mask" not in batch


def test_packing_fills_sequences_and_never_over() -> None:
    sizes = lengths(500).tolist()
    sequences = pack(sizes, 128)
    assert sorted(i for s in sequences for i in s) == list(range(500))
    loads = [sum(sizes[i] for i in s) for s in sequences]
    assert max(loads) <= 128
    assert sum(sizes) / (128 * len(sequences)) > 0.97
    assert pack([200, 3], 128) == [[0], [1]], "what is longer than a sequence has one of its own"


def test_examples_of_one_row_and_numbers_that_are_no_ids() -> None:
    columns = {
        "input_ids": [[5], [6], [7]],
        "labels": [[0.5], [1.5], [2.0]],
        "row": [0, 0, 1],
        "truncated": [False] * 3,
    }
    examples = Examples(token_table(columns))
    assert examples.rows.tolist() == [0, 0, 1]
    batch = collate(examples.take(np.array([0, 2])), 0, torch.device("cpu"))
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].tolist() == [[0.5], [2.0]]
