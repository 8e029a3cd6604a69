"""Dropout's draws on the CPU: the distribution, and what it is repeatable by."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from apf_tasks.training._dropout import fast_cpu_dropout

CPU = torch.device("cpu")
MANY = 400_000


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9999, 1.0])
def test_as_many_values_are_dropped_as_asked_for(p: float) -> None:
    torch.manual_seed(1)
    with fast_cpu_dropout(CPU):
        dropped = float((dropout(torch.ones(MANY), p, training=True) == 0).double().mean())
    assert dropped == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / MANY) + 1e-5)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(2)
    with fast_cpu_dropout(CPU):
        drawn = torch.empty(MANY).bernoulli_(0.5) - 0.5
    for apart in (1, 2, 3, 4, 5, 8, 64):
        together = float((drawn[apart:] * drawn[:-apart]).mean() * 4)
        assert abs(together) < 5 / math.sqrt(MANY), f"values {apart} apart are not correlated"


def test_the_same_seed_drops_the_same_values_and_the_next_draw_others() -> None:
    with fast_cpu_dropout(CPU):
        first, again = (torch.manual_seed(3) and dropout(torch.ones(1000), 0.3, training=True) for _ in range(2))
        following = dropout(torch.ones(1000), 0.3, training=True)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert not torch.equal(first, following), "the next draw drops other values"


def test_what_is_computed_again_drops_the_same_values() -> None:
    grown = []
    for again in (False, True):
        torch.manual_seed(4)
        x = torch.linspace(-1, 1, 999, requires_grad=True)
        with fast_cpu_dropout(CPU):
            y = checkpoint(_layer, x, use_reentrant=False) if again else _layer(x)
            y.sum().backward()
        grown.append(x.grad)
    torch.testing.assert_close(grown[1], grown[0], rtol=0, atol=0)


def _layer(x: torch.Tensor) -> torch.Tensor:
    return dropout(torch.sin(x), 0.4, training=True) * dropout(x, 0.2, training=True)


def test_attention_drops_by_these_draws() -> None:
    query = torch.randn(2, 4, 16, 8)

    def attended() -> torch.Tensor:
        torch.manual_seed(5)
        return scaled_dot_product_attention(query, query, query, dropout_p=0.5)

    torchs = attended()
    with fast_cpu_dropout(CPU):
        ours, again = attended(), attended()
    torch.testing.assert_close(again, ours, rtol=0, atol=0)
    assert not torch.allclose(ours, torchs), "attention has draws of its own"


def test_torch_is_left_as_it_was() -> None:
    torch.manual_seed(6)
    before = torch.empty(100).bernoulli_(0.5)
    with fast_cpu_dropout(CPU):
        torch.manual_seed(6)
        within = torch.empty(100).bernoulli_(0.5)
    torch.manual_seed(6)
    torch.testing.assert_close(torch.empty(100).bernoulli_(0.5), before, rtol=0, atol=0)
    assert not torch.equal(within, before), "within the block draws are others"
