"""Checkpoints by themselves: what is written is the state of one moment, whole, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from apf_tasks.cache.store import CHECKPOINT_DIR
from apf_tasks.params.optimizers import NAMES, AdamW
from apf_tasks.params.train import TrainParams
from apf_tasks.training import checkpoints
from apf_tasks.training.checkpoints import Checkpointer, TrainerState, load_checkpoint
from apf_tasks.training.optim.from_params import build, decay_groups, from_param_groups
from apf_tasks.training.weights import save_best

Setting = tuple[BertForSequenceClassification, torch.optim.Optimizer]
KEPT = ("adamw", "adamw_offload", "adafactor", "sgd", "muon")


def setting(name: str = "adamw", seed: int = 0) -> Setting:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=60, **sizes)).eval()
    optimizer = TrainParams.model_validate({"optimizer": name}).optimizer
    return model, build(optimizer, model, 1e-3, 0.01)


def step(model: BertForSequenceClassification, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.arange(48).view(4, 12)
    model(input_ids=ids, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def values(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", KEPT)
def test_what_continues_takes_the_same_steps(name: str, tmp_path: Path) -> None:
    model, optimizer = setting(name)
    step(model, optimizer)
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        kept.save_async(TrainerState(step=1, best_scores={"f1": 0.5}))
    step(model, optimizer)
    again, its = setting(name, seed=1)
    assert load_checkpoint(tmp_path, again, its) == TrainerState(step=1, best_scores={"f1": 0.5})
    step(again, its)
    torch.testing.assert_close(values(again), values(model), rtol=0, atol=0)


def test_the_optimizer_without_a_test_above_needs_another_library() -> None:
    assert set(NAMES) - set(KEPT) == {"adamw_8bit"}  # test_torchao.py


@pytest.mark.parametrize("room", [0, 1e18])
def test_steps_taken_while_it_is_written_are_not_in_it(
    room: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "COPY_MEMORY_FACTOR", room)  # there is room for a copy, or there is not
    model, optimizer = setting()
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        for number in (1, 2, 3):
            step(model, optimizer)
            then = values(model)
            kept.save_async(TrainerState(step=number))
            step(model, optimizer)
        assert kept.blocked_seconds > 0
    again, its = setting(seed=1)
    assert load_checkpoint(tmp_path, again, its) == TrainerState(step=3)
    torch.testing.assert_close(values(again), then, rtol=0, atol=0)
    assert [path.name for path in (tmp_path / CHECKPOINT_DIR).iterdir()] == ["state-00000003"]


def test_only_the_best_weights_that_a_state_names_are_kept(tmp_path: Path) -> None:
    model, optimizer = setting()
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        for number in (1, 2):
            save_best(tmp_path, model, number)
        kept.save_async(TrainerState(step=2, best_step=2))
        kept.wait()
        save_best(tmp_path, model, 3)
    assert sorted(path.name for path in (tmp_path / CHECKPOINT_DIR).glob("best-*")) == [
        "best-00000002.safetensors",
        "best-00000003.safetensors",
    ]


def test_a_state_that_is_not_whole_is_none(tmp_path: Path) -> None:
    model, optimizer = setting()
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        kept.save_async(TrainerState(step=1))
    (tmp_path / CHECKPOINT_DIR / "state-00000001").rename(tmp_path / CHECKPOINT_DIR / checkpoints.NEW)
    assert load_checkpoint(tmp_path, model, optimizer) is None
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        kept.save_async(TrainerState(step=2))
    assert load_checkpoint(tmp_path, model, optimizer) == TrainerState(step=2)


@pytest.mark.parametrize("how", [lambda kept: kept.wait(), lambda kept: kept.save_async(TrainerState(step=2))])
def test_what_the_writing_meets_is_raised(how: Callable[[Checkpointer], None], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_DIR).write_text("a file where the folder has to be")
    model, optimizer = setting()
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        kept.save_async(TrainerState(step=1))
        with pytest.raises(OSError, match="checkpoint"):
            how(kept)


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model, _ = setting()
    model.register_parameter("again", model.classifier.weight)
    optimizer = from_param_groups(AdamW(), decay_groups(model, 0.0), 1e-3)
    with Checkpointer(tmp_path, model, optimizer, sharded=False) as kept:
        kept.save_async(TrainerState(step=1))
    then = model.classifier.weight.detach().clone()
    with torch.no_grad():
        model.classifier.weight.zero_()
    load_checkpoint(tmp_path, model, optimizer)
    torch.testing.assert_close(model.classifier.weight, then, rtol=0, atol=0)
