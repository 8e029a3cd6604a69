"""Gradients of embeddings over the rows in use: those that torch computes over whole tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from apf_tasks.models.pretrained import load_pretrained
from apf_tasks.params.model import ModelParams
from apf_tasks.training._embedding_gradients import sparse_embedding_gradients
from tests.support.tiny import tiny_model

HEADS = {
    "bert": "MaskedLM",
    "roberta": "MaskedLM",
    "gpt2": "CausalLM",
    "qwen2": "CausalLM",
    "t5": "Seq2SeqLM",
    "bart": "Seq2SeqLM",
}


def gradients(model: nn.Module, batches: list[dict[str, torch.Tensor]], apart: bool) -> dict[str, torch.Tensor]:
    """Summed over the batches, a backward pass for each."""
    model.zero_grad()
    with sparse_embedding_gradients(apart) as used:
        for batch in batches:
            model(**batch).loss.backward()
            used.add()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", HEADS)  # tied to the head or not, shared by two halves, scaled, with padding
def test_a_model_learns_the_same(architecture: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, architecture)
    model: Any = load_pretrained(folder, ModelParams(base=str(folder)), f"AutoModelFor{HEADS[architecture]}").eval()
    pad = model.config.pad_token_id or 0
    batches = []
    for seed in range(3):
        ids = torch.randint(5, 60, (4, 12), generator=torch.Generator().manual_seed(seed))
        ids[0, 8:] = pad
        batches.append({"input_ids": ids, "attention_mask": (ids != pad).long(), "labels": ids})
    expected, found = gradients(model, batches, False), gradients(model, batches, True)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 3}, {"padding_idx": -1}, {"scale_grad_by_freq": True}, {"dtype": torch.float64}]
)
def test_a_table_learns_as_torch_says(options: dict[str, Any]) -> None:
    table = nn.Embedding(10, 4, **options)
    ids, weight = torch.tensor([[1, 3, 3], [9, 1, 0]]), torch.randn(2, 3, 4, dtype=table.weight.dtype)

    def loss() -> torch.Tensor:
        return (table(ids) * weight).sum()

    (expected,) = torch.autograd.grad(loss(), table.weight)
    with sparse_embedding_gradients(True) as used:
        loss().backward()  # type: ignore[no-untyped-call]
        assert (table.weight.grad is None) == (not options or "padding_idx" in options)
        used.add()
    assert table.weight.grad is not None
    torch.testing.assert_close(table.weight.grad, expected)
    table.weight.grad = None
    loss().backward()  # type: ignore[no-untyped-call]
    assert table.weight.grad is not None  # afterwards torch is as it was


def test_a_table_that_is_computed_gives_its_gradient_on() -> None:
    base, ids = nn.Parameter(torch.randn(6, 2)), torch.tensor([0, 5, 5])
    with sparse_embedding_gradients(True) as used:
        nn.functional.embedding(ids, 2 * base).sum().backward()
        used.add()
    assert base.grad is not None
    assert base.grad.tolist() == [[2, 2], *[[0, 0]] * 4, [4, 4]]
