"""The loss in pieces against the loss of all logits at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from apf_tasks.families._language_model.linear_cross_entropy import linear_cross_entropy


@pytest.mark.parametrize("bias", ["none", "of the layer", "added"])
@pytest.mark.parametrize("at_once", [3, 64])
def test_loss_and_gradients_are_those_of_all_logits(at_once: int, bias: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 50, bias=bias == "of the layer")
    added = torch.randn(50) if bias == "added" else None
    states, targets = torch.randn(20, 8, requires_grad=True), torch.randint(50, (20,))
    inputs = [states, *layer.parameters()]
    logits = layer(states) + (0 if added is None else added)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    found = linear_cross_entropy(states, layer, added, targets, at_once)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found * 3, inputs), torch.autograd.grad(expected * 3, inputs))


def test_without_gradients_the_loss_is_the_same() -> None:
    layer, states, targets = torch.nn.Linear(8, 50), torch.randn(20, 8), torch.randint(50, (20,))
    with torch.no_grad():
        found = linear_cross_entropy(states, layer, None, targets, 7)
    torch.testing.assert_close(found, F.cross_entropy(layer(states), targets, reduction="sum"))
    assert not found.requires_grad


def test_a_certain_answer_costs_nothing_and_an_impossible_one_is_finite() -> None:
    layer = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1000.0], [-1000.0]]))
    for target, expected in ((0, 0.0), (1, 2000.0)):
        assert linear_cross_entropy(torch.ones(1, 1), layer, None, torch.tensor([target]), 1).item() == expected


def test_in_bfloat16_the_loss_is_summed_in_float32() -> None:
    """Rounded to bfloat16 after every piece, the sum of these losses would be off by several percent."""
    vocabulary = 50257
    torch.manual_seed(0)
    layer, states = torch.nn.Linear(16, vocabulary, bias=False), torch.randn(2048, 16, requires_grad=True)
    torch.nn.init.normal_(layer.weight)
    targets = torch.randint(vocabulary, (len(states),))
    at_once, expected = 64, 0.0
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(states, layer, None, targets, at_once)
        for piece, wanted in zip(states.split(at_once), targets.split(at_once), strict=True):
            loss = F.cross_entropy(layer(piece).float(), wanted, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
            expected += loss.item()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert layer.weight.grad is not None
    wanted_gradient, layer.weight.grad = layer.weight.grad, None
    found.backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad.dtype == torch.float32
    assert (layer.weight.grad - wanted_gradient).norm() <= 0.01 * wanted_gradient.norm()
