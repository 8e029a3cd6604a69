"""Layers that compute without padding give what padded ones give, and what cannot is found out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel

from apf_tasks.data.batching import collate
from apf_tasks.evaluation.predictor import Placement, Predictor
from apf_tasks.examples import Columns, Examples, token_table
from apf_tasks.family import Family, get_family
from apf_tasks.models.pretrained import load_base
from apf_tasks.params.family import family_params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training import attention
from apf_tasks.training.attention import Lengths, padding_free
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.optimizers import optimizer_of
from apf_tasks.training.padding_free import lengths_of, try_padding_free
from tests.support.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, review_rows, tiny_model

CPU = torch.device("cpu")
FREE = [name for name in ENCODERS if name != "deberta-v2"]
"""Encoders whose attention can be exchanged."""
TEXTS = [
    "a",
    "good film it is",
    "bad",
    "one of the best films that i have seen in years , and i have seen many",
    "so so",
]


def family_of(architecture: str) -> Family:
    if architecture in DECODERS or architecture == "gemma2":
        return get_family(family_params("causal_lm").model_validate({"name": "causal_lm"}))
    if architecture in ENCODER_DECODERS:
        options = {"name": "translation", "source_language": "en", "target_language": "de"}
        return get_family(family_params("translation").model_validate(options))
    return get_family(family_params("sentiment").model_validate({"name": "sentiment"}))


def rows_for(family: Family) -> pd.DataFrame:
    sides = {"text": TEXTS, "source": TEXTS, "target": TEXTS[::-1], "label": ["yes", "no", "yes", "no", "no"]}
    return pd.DataFrame({name: sides[name] for name in (*family.columns, "text", "label")})


def network_of(folder: Path, architecture: str, dropout: float = 0.0) -> Predictor:
    family, params = family_of(architecture), ModelParams(base=str(folder), max_tokens=64)
    torch.manual_seed(0)
    model = family.load_model(folder, params, ("no", "yes"))
    for module in model.modules():
        for where in ("p", "dropout", "attention_dropout"):
            if isinstance(getattr(module, where, None), float):
                setattr(module, where, dropout)
    return Predictor(model, load_base(folder, params), family, ("no", "yes"), Placement(CPU, torch.float32))


def columns_of(network: Predictor) -> Columns:
    found = network.family.encode(rows_for(network.family), network.base, network.label_names)
    return {name: found[name] for name in found if name not in ("truncated", "row")}


def gradients(network: Predictor, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the gradient of all weights."""
    network.model.zero_grad()
    loss = network.family.loss(network.model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    found = [p.grad.flatten() for p in network.model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(found)


def without_padding(network: Predictor, batch: Any, lengths: Lengths) -> tuple[torch.Tensor, torch.Tensor]:
    free = padding_free(network.model)
    try:
        with free.batch(batch, lengths):
            return gradients(network, batch)
    finally:
        free.remove()


@pytest.mark.parametrize("way", ["row by row", "padded for the attention alone"])
@pytest.mark.parametrize("name", [*FREE, *DECODERS, "opt", *ENCODER_DECODERS])
def test_loss_and_gradient_are_those_of_padded_rows(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "row by row":
        monkeypatch.setattr(attention, "_row_by_row", attention._padded)  # what other devices than a CPU compute
    sizes = {"local_attention": 8} if name == "modernbert" else {}
    network = network_of(tiny_model(tmp_path / name, name, **sizes), name)
    columns = columns_of(network)
    batch = collate(columns, network.base.pad_id, CPU)
    loss, gradient = gradients(network, batch)
    free_loss, free_gradient = without_padding(network, batch, lengths_of(columns))
    torch.testing.assert_close(free_loss, loss, rtol=1e-5, atol=1e-5)
    assert (free_gradient - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_the_layers_see_no_padding(name: str, tmp_path: Path) -> None:
    network = network_of(tiny_model(tmp_path / name, name), name)
    columns = columns_of(network)
    seen: list[tuple[int, ...]] = []
    free = padding_free(network.model)
    linear = next(m for m in network.model.modules() if type(m).__name__ in ("Linear", "Conv1D"))
    linear.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    batch = collate(columns, network.base.pad_id, CPU)
    with free.batch(batch, lengths_of(columns)):
        network.family.loss(network.model, batch)
    network.family.loss(network.model, batch)
    tokens = sum(map(len, columns["input_ids"]))
    assert (1, tokens) in [shape[:2] for shape in seen]
    assert seen[-1][:2] == batch["input_ids"].shape, "outside of the block it computes as ever"


def test_recomputed_layers_know_their_rows(tmp_path: Path) -> None:
    network = network_of(tiny_model(tmp_path / "bert", "bert"), "bert")
    columns = columns_of(network)
    batch = collate(columns, network.base.pad_id, CPU)
    _, gradient = gradients(network, batch)
    network.model.train()
    network.model.activation_checkpointing_enable({"use_reentrant": False})
    _, recomputed = without_padding(network, batch, lengths_of(columns))
    assert (recomputed - gradient).norm() <= 1e-5 * gradient.norm()


def test_a_row_says_nothing_about_the_one_behind_it(tmp_path: Path) -> None:
    network = network_of(tiny_model(tmp_path / "gpt2", "gpt2"), "gpt2")
    columns = {name: values[1:3] for name, values in columns_of(network).items()}
    silent = {**columns, "labels": [[-100] * len(columns["labels"][0]), columns["labels"][1]]}
    changed = {**silent, "input_ids": [columns["input_ids"][0][::-1], columns["input_ids"][1]]}
    losses = [
        without_padding(network, collate(those, network.base.pad_id, CPU), lengths_of(those))[0]
        for those in (silent, changed)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["deberta-v2", "gemma2"])
def test_an_architecture_that_attends_in_a_way_of_its_own_is_padded_and_it_is_said(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="apf")
    network = network_of(tiny_model(tmp_path / name, name), name)
    caplog.clear()
    assert try_padding_free(network, Examples(token_table(columns_of(network)))) is None
    assert [r.message.strip() for r in caplog.records] == ["trained with padding: attention by eager"]


def test_rows_that_meet_outside_of_the_attention_are_found_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each token takes something from the one before it, as in a convolution."""
    caplog.set_level(logging.INFO, logger="apf")
    network = network_of(tiny_model(tmp_path / "bert", "bert"), "bert")
    examples = Examples(token_table(columns_of(network)))
    free = try_padding_free(network, examples)
    assert free is not None
    free.remove()
    layer = next(m for m in network.model.modules() if type(m).__name__ == "BertOutput")
    layer.register_forward_hook(lambda module, given, out: out + 0.1 * out.roll(1, dims=1))
    assert try_padding_free(network, examples) is None
    assert "its gradient differs by" in caplog.text
    assert not any(module._forward_pre_hooks for module in network.model.modules()), "nothing stays in the model"
    assert network.model.config._attn_implementation == "sdpa"


def trained(
    folder: Path, name: str, padded: bool, tokens: int, dropout: float = 0.0
) -> tuple[PreTrainedModel, list[float]]:
    """The model after some steps in passes of at most so many tokens, and its losses."""
    network, params = network_of(folder, name, dropout), TrainParams(batch_size=8, epochs=2, micro_batch_tokens=tokens)
    rows = pd.DataFrame(review_rows(30)).assign(source=lambda r: r["text"], target=lambda r: r["text"].str[:20])
    examples = Examples(token_table(network.family.encode(rows, network.base, ("negative", "positive"))))
    network = replace(network, label_names=("negative", "positive"))
    free = None if padded else try_padding_free(network, examples)
    assert (free is None) == padded
    optimizer = optimizer_of(network.model, params, RuntimeParams())
    losses = [step.loss for step in train_steps(network, optimizer, examples, params, free=free)]
    return network.model, losses


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_training_is_the_same_with_padding_and_without(name: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / name, name)
    (one, losses), (other, others) = trained(folder, name, True, 10**6), trained(folder, name, False, 100)
    assert others == pytest.approx(losses, rel=1e-4)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "opt", "t5", "bart", "deberta-v2", "gemma2"])
def test_dropout_does_not_depend_on_the_passes_of_a_step(name: str, tmp_path: Path) -> None:
    """Of hidden states, attention and heads, in every layout that architectures have."""
    folder = tiny_model(tmp_path / name, name)
    _, none = trained(folder, name, True, 10**6)
    for padded in (True, False)[: 1 if name in ("deberta-v2", "gemma2") else 2]:
        (_, losses), (_, others) = (trained(folder, name, padded, tokens, dropout=0.3) for tokens in (10**6, 60))
        assert losses != pytest.approx(none, rel=1e-4), "something is dropped"
        assert others == pytest.approx(losses, rel=1e-5)
