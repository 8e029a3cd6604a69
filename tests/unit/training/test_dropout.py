"""Dropout's draws on the CPU: the distribution, and what they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from apf_tasks.training._dropout import dropout_by_row

CPU = torch.device("cpu")
MANY = 400_000


def drop(shape: Sequence[int], rows: Sequence[int], p: float = 0.5, step: int = 0, seed: int = 0) -> torch.Tensor:
    """What the first dropout of a pass of these rows keeps."""
    with dropout_by_row(CPU, seed, step) as draws:
        draws.begin(rows, {"input_ids": [shape[-1]] * len(rows)}, None)
        return dropout(torch.ones(*shape), p, training=True)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9999, 1.0])
def test_as_many_values_are_dropped_as_asked_for(p: float) -> None:
    dropped = float((drop([4, MANY // 4], range(4), p) == 0).double().mean())
    assert dropped == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / MANY) + 1e-5)


def test_neighbours_rows_steps_seeds_and_calls_are_dropped_independently() -> None:
    with dropout_by_row(CPU, 0, 0) as draws:
        draws.begin(range(2), {"input_ids": [1, 1]}, None)
        first, second = (torch.empty(2, MANY).bernoulli_(0.5) - 0.5 for _ in range(2))
    for apart in (1, 2, 3, 4, 5, 8, 64):
        assert_independent(first[0, apart:], first[0, :-apart])
    others = [drop([1, MANY], [0], step=1), drop([1, MANY], [0], seed=1)]
    for other in (first[1], second[0], second[1], *(kept[0] / 2 - 0.5 for kept in others)):
        assert_independent(first[0], other)


def assert_independent(one: torch.Tensor, other: torch.Tensor) -> None:
    assert abs(float((one * other).mean() * 4)) < 5 / math.sqrt(MANY)


def test_a_row_is_dropped_alike_in_any_pass() -> None:
    together = drop([3, 5, 8], [7, 2, 9])
    torch.testing.assert_close(drop([2, 5, 8], [9, 7]), together[[2, 0]], rtol=0, atol=0)
    torch.testing.assert_close(drop([1, 4, 8], [2]), together[1:2, :4], rtol=0, atol=0)  # with less padding
    assert not torch.equal(drop([3, 5, 8], [7, 2, 9], step=1), together)
    assert not torch.equal(drop([3, 5, 8], [7, 2, 9], seed=1), together)


def test_the_attention_of_a_row_is_dropped_alike_with_any_padding() -> None:
    lengths = {"input_ids": [3, 5]}

    def attention(rows: list[int], longest: int) -> torch.Tensor:
        with dropout_by_row(CPU, 0, 0) as draws:
            draws.begin(rows, {"input_ids": [lengths["input_ids"][row] for row in rows]}, None)
            return dropout(torch.ones(len(rows), 2, longest, longest), 0.5, training=True)

    together = attention([0, 1], 5)
    torch.testing.assert_close(attention([1], 9)[0, :, :5, :5], together[1], rtol=0, atol=0)
    torch.testing.assert_close(attention([0], 3)[0], together[0, :, :3, :3], rtol=0, atol=0)


def test_what_is_no_rows_own_is_dropped_alike_in_all_passes() -> None:
    torch.testing.assert_close(drop([40, 8], [1, 2, 3]), drop([40, 8], [4, 5]), rtol=0, atol=0)


def test_the_next_call_drops_other_values_and_the_same_pass_the_same() -> None:
    passes = []
    with dropout_by_row(CPU, 0, 0) as draws:
        for seed in (3, 4):  # of other devices: not of these draws
            torch.manual_seed(seed)
            draws.begin([5], {"input_ids": [1000]}, None)
            passes.append([dropout(torch.ones(1, 1000), 0.3, training=True) for _ in range(2)])
    assert not torch.equal(*passes[0])
    for one, again in zip(*passes, strict=True):
        torch.testing.assert_close(again, one, rtol=0, atol=0)


def test_what_is_computed_again_drops_the_same_values() -> None:
    grown = []
    for again in (False, True):
        x = torch.linspace(-1, 1, 999, requires_grad=True)
        with dropout_by_row(CPU, 4, 0) as draws:
            draws.begin([1], {"input_ids": [999]}, None)
            y = checkpoint(_layer, x[None], use_reentrant=False) if again else _layer(x[None])
            y.sum().backward()
        grown.append(x.grad)
    torch.testing.assert_close(grown[1], grown[0], rtol=0, atol=0)


def _layer(x: torch.Tensor) -> torch.Tensor:
    return dropout(torch.sin(x), 0.4, training=True) * dropout(x, 0.2, training=True)


def test_attention_drops_by_these_draws() -> None:
    query = torch.randn(2, 4, 16, 8)

    def attended(row: int) -> torch.Tensor:
        with dropout_by_row(CPU, 0, 0) as draws:
            draws.begin([0, row], {"input_ids": [16, 16]}, None)
            return scaled_dot_product_attention(query, query, query, dropout_p=0.5)

    torch.testing.assert_close(attended(1), attended(1), rtol=0, atol=0)
    torch.testing.assert_close(attended(2)[0], attended(1)[0], rtol=0, atol=0)
    assert not torch.allclose(attended(2)[1], attended(1)[1])


def test_torch_is_left_as_it_was() -> None:
    torch.manual_seed(6)
    before = torch.empty(100).bernoulli_(0.5)
    with dropout_by_row(CPU, 0, 0):
        torch.manual_seed(6)
        within = torch.empty(100).bernoulli_(0.5)
    torch.manual_seed(6)
    torch.testing.assert_close(torch.empty(100).bernoulli_(0.5), before, rtol=0, atol=0)
    assert not torch.equal(within, before), "within the block draws are others"


def test_a_probability_is_exact_to_one_in_65536() -> None:
    kept = drop([1, 10], [0], p=1e-6)
    np.testing.assert_allclose(kept.numpy(), 1 / (1 - 1e-6))
