"""The order of an epoch and the cut into forward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apf_tasks.data.batching import PASS_TOKENS, collate, cut_by_length, cut_by_tokens, epoch_order, micro_batches
from apf_tasks.examples import Examples, count_targets, token_table


def lengths(count: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).integers(3, 90, count)


def test_every_row_once_an_epoch_in_full_batches() -> None:
    order = epoch_order(1003, 16, seed=0, epoch=0)
    assert sorted(np.concatenate(order)) == list(range(1003))
    assert sorted(len(rows) for rows in order)[:2] == [11, 16]


def test_the_order_changes_with_epoch_and_seed_and_is_reproducible() -> None:
    orders = [np.concatenate(epoch_order(1000, 16, seed, epoch)).tolist() for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert np.concatenate(epoch_order(1000, 16, 0, 0)).tolist() == orders[0]


def test_a_step_has_rows_of_all_lengths() -> None:
    sizes = lengths()
    tokens = [int(sizes[rows].sum()) for rows in epoch_order(1000, 16, 0, 0) if len(rows) == 16]
    alike = np.sort(sizes)[: 16 * (1000 // 16)].reshape(-1, 16).sum(axis=1)
    assert np.std(tokens) < 0.3 * np.std(alike), "a step has as many tokens as another"


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


@pytest.mark.parametrize("most", [1, 100, 500, 10**6])
def test_passes_without_padding_keep_the_token_budget(most: int) -> None:
    sizes = lengths(64)
    passes = cut_by_tokens(sizes, most)
    assert sorted(np.concatenate(passes)) == list(range(64))
    assert max((int(sizes[one].sum()) for one in passes if len(one) > 1), default=0) <= most
    assert all((np.diff(sizes[one]) <= 0).all() for one in passes), "rows of one length are neighbours"
    assert len(passes) <= 11 / 9 * max(1, sizes.sum() / most) + len(sizes[sizes > most]) + 1


def best_cut(sizes: list[int], most: int) -> int:
    """Padded tokens and passes of the best of all cuts of rows in the order of their length."""
    if not sizes:
        return 0
    return min(
        sizes[0] * count + PASS_TOKENS + best_cut(sizes[count:], most)
        for count in range(1, len(sizes) + 1)
        if count == 1 or sizes[0] * count <= most
    )


@pytest.mark.parametrize("most", [1, 60, 200, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_no_cut_pads_less(most: int, seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 90, 9)
    passes = cut_by_length(sizes, most)
    assert sorted(np.concatenate(passes)) == list(range(9))
    padded = [int(sizes[one].max()) * len(one) for one in passes]
    assert max((tokens for one, tokens in zip(passes, padded, strict=True) if len(one) > 1), default=0) <= most
    assert sum(padded) + PASS_TOKENS * len(passes) == best_cut(sorted(sizes.tolist(), reverse=True), most)


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
