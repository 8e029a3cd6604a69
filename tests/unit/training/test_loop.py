"""What must hold of full-parameter training, on a model of a few thousand parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from apf_tasks.data.batching import collate
from apf_tasks.errors import DivergedError, ModelError
from apf_tasks.evaluation.predictor import Placement, Predictor, predict_rows
from apf_tasks.examples import Examples, token_table
from apf_tasks.family import Prediction, get_family
from apf_tasks.models.pretrained import load_base
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.from_params import build
from apf_tasks.training.optim.optimizers import optimizer_of
from apf_tasks.training.optim.schedules import total_steps
from tests.support.tiny import review_rows, tiny_bert

PLACE = Placement(torch.device("cpu"), torch.float32)
NAMES = ("negative", "positive")


class Setting:
    """A tiny model and its examples, made anew from the same seed each time."""

    def __init__(self, folder: Path, dropout: float = 0.0) -> None:
        self.folder = tiny_bert(folder)
        self.dropout = dropout
        self.params = ModelParams(base=str(self.folder), max_tokens=64)
        self.family = get_family(FamilyParams(name="sentiment"))
        self.base = load_base(self.folder, self.params)
        self.rows = pd.DataFrame(review_rows(40))

    def examples(self, rows: pd.DataFrame | None = None) -> Examples:
        rows = self.rows if rows is None else rows
        return Examples(token_table(self.family.encode(rows, self.base, NAMES)))

    def network(self, model: PreTrainedModel | None = None) -> Predictor:
        return Predictor(model or self.model(), self.base, self.family, NAMES, PLACE)

    def predict(self, model: PreTrainedModel, rows: pd.DataFrame) -> list[Prediction]:
        return predict_rows(self.network(model), self.examples(rows), rows, {})

    def model(self) -> PreTrainedModel:
        torch.manual_seed(1)
        model = self.family.load_model(self.folder, self.params, NAMES)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.dropout
        return model

    def train(
        self, steps: int | None = None, rows: pd.DataFrame | None = None, **values: object
    ) -> tuple[PreTrainedModel, list[float]]:
        params = TrainParams(**{"learning_rate": 1e-3, "epochs": 2, "batch_size": 8, **values})  # type: ignore[arg-type]
        model = self.model()
        network = self.network(model)
        optimizer = optimizer_of(network.model, params, RuntimeParams())
        torch.manual_seed(2)
        losses = []
        for step in train_steps(network, optimizer, self.examples(rows), params):
            losses.append(step.loss)
            if step.step == steps:
                break
        return model, losses


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "tiny")


def weights(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_every_parameter_tensor_changes(setting: Setting) -> None:
    before = {name: p.detach().clone() for name, p in setting.model().named_parameters()}
    after = dict(setting.train()[0].named_parameters())
    assert [name for name, p in before.items() if torch.equal(p, after[name])] == []


def test_a_learning_rate_of_zero_changes_nothing(setting: Setting) -> None:
    torch.testing.assert_close(weights(setting.train(learning_rate=0.0)[0]), weights(setting.model()), rtol=0, atol=0)


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    setting = Setting(tmp_path / "tiny", dropout=0.1)
    first, second = setting.train(), setting.train()
    assert first[1] == second[1]
    torch.testing.assert_close(weights(first[0]), weights(second[0]), rtol=0, atol=0)
    assert setting.train(seed=7)[1] != first[1]


def test_it_overfits_eight_rows(setting: Setting) -> None:
    rows = setting.rows.head(8)
    model, losses = setting.train(rows=rows, epochs=60, schedule="constant", weight_decay=0.0)
    assert losses[-1] < 0.05
    found = setting.predict(model, rows)
    assert [p["prediction"] for p in found] == rows["label"].tolist()


@pytest.mark.parametrize("micro_batch_tokens", [1, 40, 100])
def test_how_a_step_is_cut_does_not_change_it(setting: Setting, micro_batch_tokens: int) -> None:
    whole, whole_losses = setting.train(micro_batch_tokens=10**6)
    cut, cut_losses = setting.train(micro_batch_tokens=micro_batch_tokens)
    assert cut_losses == pytest.approx(whole_losses, rel=1e-4)
    torch.testing.assert_close(weights(cut), weights(whole), atol=2e-5, rtol=1e-4)


class Casts(TorchDispatchMode):
    """Counts how often each parameter is cast to bfloat16."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.counts = {p.data_ptr(): 0 for p in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16:
            pointer = args[0].data_ptr()
            self.counts[pointer] = self.counts.get(pointer, -1000) + 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_for_all_passes_of_a_step(setting: Setting) -> None:
    gradients: list[torch.Tensor] = []
    for most in (10**6, 40):
        model = setting.model()
        network = Predictor(model, setting.base, setting.family, NAMES, Placement(PLACE.device, torch.bfloat16))
        params = TrainParams(batch_size=8, learning_rate=0.0, micro_batch_tokens=most, max_grad_norm=None)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        optimizer.register_step_pre_hook(lambda own, *_: gradients.append(flat_gradient(own)))
        with Casts(model) as casts:
            next(train_steps(network, optimizer, setting.examples(), params))
        assert {casts.counts[p.data_ptr()] for p in model.parameters()} == {0, 1}
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def flat_gradient(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]])


def test_a_pass_that_does_not_fit_is_cut_and_the_step_is_the_same(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    whole, losses = setting.train()
    seen: list[int] = []

    def loss_in_little_memory(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(batch["input_ids"].numel())
        if len(seen) > 3 and seen[-1] > 40:  # in the middle of the training somebody takes the memory away
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return family.loss(model, batch)

    family = setting.family
    setting.family = replace(family, loss=loss_in_little_memory)
    with caplog.at_level("WARNING", logger="apf"):
        cut, cut_losses = setting.train()
    assert cut_losses == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(weights(cut), weights(whole), atol=2e-5, rtol=1e-4)
    assert "out of memory: from now on at most" in caplog.records[-1].message
    assert max(seen[3:]) > 40 >= max(seen[-8:])
    setting.family = replace(family, loss=no_memory)
    with pytest.raises(ModelError, match="a forward and backward pass that fit into memory"):
        setting.train()


def no_memory(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_more_padding_is_the_same_loss(setting: Setting) -> None:
    examples, model = setting.examples(), setting.model()
    short = collate(examples.take(np.arange(3)), 0, PLACE.device)
    longer = {}
    for name, tensor in short.items():
        wide = name != "labels"
        longer[name] = torch.nn.functional.pad(tensor, (0, 9)) if wide else tensor
    torch.testing.assert_close(setting.family.loss(model.eval(), longer), setting.family.loss(model.eval(), short))


def test_a_loss_that_is_no_number_stops_before_the_update(setting: Setting) -> None:
    with pytest.raises(DivergedError, match=r"training step \d+: expected a finite loss"):
        setting.train(learning_rate=1e12, max_grad_norm=None, epochs=50)
    model = setting.model()
    with torch.no_grad():
        model.classifier.weight[0, 0] = math.nan
    params = TrainParams()
    optimizer = build(params.optimizer, model, 1e-3, 0.0)
    before = model.bert.embeddings.word_embeddings.weight.detach().clone()
    with pytest.raises(DivergedError, match=r"Lower train\.learning_rate"):
        next(train_steps(setting.network(model), optimizer, setting.examples(), params))
    torch.testing.assert_close(model.bert.embeddings.word_embeddings.weight, before, rtol=0, atol=0)


def test_a_fraction_of_an_epoch_and_the_last_small_step(setting: Setting) -> None:
    assert total_steps(40, TrainParams(epochs=0.5, batch_size=8)) == 2
    assert total_steps(41, TrainParams(epochs=1, batch_size=8)) == 6
    assert total_steps(1, TrainParams(epochs=0.1, batch_size=8)) == 1
    assert len(setting.train(rows=setting.rows.head(11), epochs=2)[1]) == 4


def test_predictions_keep_the_order_of_the_rows(setting: Setting) -> None:
    model = setting.model().eval()
    together = setting.predict(model, setting.rows)
    for i in (0, 7, 39):
        alone = setting.predict(model, setting.rows.iloc[[i]])
        assert alone[0]["probability"] == pytest.approx(together[i]["probability"], abs=1e-5)


def trajectory(setting: Setting, make: Callable[[PreTrainedModel], torch.optim.Optimizer]) -> torch.Tensor:
    """Ten textbook steps on whole batches in the loop's order: zero_grad, backward, clip, step."""
    from apf_tasks.data.batching import epoch_order

    model, examples = setting.model(), setting.examples()
    optimizer = make(model)
    order = [rows for epoch in range(2) for rows in epoch_order(len(examples), 8, 0, epoch)]
    for rows in order:
        optimizer.zero_grad()
        batch = collate(examples.take(rows), 0, PLACE.device)
        labels = batch.pop("labels").squeeze(1)
        model.train()
        torch.nn.functional.cross_entropy(model(**batch).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return weights(model)


def test_the_loop_is_the_textbook_loop(setting: Setting) -> None:
    ours = setting.train(schedule="constant", warmup_fraction=0.0, weight_decay=0.0)[0]
    theirs = trajectory(setting, lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0))
    torch.testing.assert_close(weights(ours), theirs, atol=2e-5, rtol=1e-4)
