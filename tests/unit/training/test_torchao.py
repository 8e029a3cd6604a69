"""torchao's 8-bit AdamW, driven as a training drives it. Skipped without torchao (`pip install 'apf[cuda]'`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.params.optimizers import AdamW, AdamW8bit
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.runtime.launch import run_on_ranks
from apf_tasks.training.checkpoints import Checkpointer, TrainerState, load_checkpoint
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.from_params import build
from apf_tasks.training.optim.optimizers import optimizer_of
from tests.support import rank_calls
from tests.support.tiny import tiny_bert
from tests.unit.training.test_loop import Setting, weights

pytest.importorskip("torchao")

EIGHT = AdamW8bit(name="adamw_8bit")
PLAIN = {"batch_size": 8, "warmup_fraction": 0.0, "weight_decay": 0.0, "optimizer": EIGHT}


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """The library compiles its step once for every shape of a tensor, which takes longer than these trainings."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    made = Setting(tmp_path / "tiny", dropout=0.1)
    tiny_bert(made.folder, hidden=64, layers=1)  # the library keeps 8 bits of tensors of 4,096 numbers and more
    return made


def eight_bit_states(optimizer: torch.optim.Optimizer) -> int:
    return sum(type(v).__name__ == "OptimState8bit" for state in optimizer.state.values() for v in state.values())


def trained(
    setting: Setting, params: TrainParams, start: int, count: int, network: Predictor, optimizer: Any
) -> list[float]:
    loop = train_steps(network, optimizer, setting.examples(), params, start)
    return [next(loop).loss for _ in range(count)]


def fresh(setting: Setting, params: TrainParams) -> tuple[Predictor, torch.optim.Optimizer]:
    network = setting.network()
    return network, build(params.optimizer, network.model, params.learning_rate, params.weight_decay)


def test_it_steps_by_the_rates_of_a_schedule_with_moments_of_8_bits(setting: Setting) -> None:
    params = TrainParams(**PLAIN | {"schedule": "cosine"})  # type: ignore[arg-type]
    network, optimizer = fresh(setting, params)
    before = {name: p.detach().clone() for name, p in network.model.named_parameters()}
    trained(setting, params, 0, 3, network, optimizer)
    assert [name for name, p in network.model.named_parameters() if torch.equal(p, before[name])] == []
    rate = optimizer.param_groups[0]["lr"]
    assert isinstance(rate, torch.Tensor)
    assert 0 < float(rate) < params.learning_rate
    assert eight_bit_states(optimizer) > 10


def test_a_training_is_saved_and_goes_on_with_the_same_bits(setting: Setting, tmp_path: Path) -> None:
    params = TrainParams(**PLAIN)  # type: ignore[arg-type]
    whole, its = fresh(setting, params)
    wanted = trained(setting, params, 0, 4, whole, its)
    first, optimizer = fresh(setting, params)
    with Checkpointer(tmp_path, first.model, optimizer, sharded=False) as kept:
        assert trained(setting, params, 0, 2, first, optimizer) == wanted[:2]
        kept.save_async(TrainerState(step=2))
    second, optimizer = fresh(setting, params)
    assert load_checkpoint(tmp_path, second.model, optimizer) == TrainerState(step=2)
    assert eight_bit_states(optimizer) > 10
    assert trained(setting, params, 2, 2, second, optimizer) == wanted[2:]
    torch.testing.assert_close(weights(second.model), weights(whole.model), rtol=0, atol=0)


def test_a_gradient_is_clipped_before_it_is_used(setting: Setting) -> None:
    """Down to far below epsilon, where AdamW hardly moves a weight."""
    params = TrainParams(**PLAIN | {"max_grad_norm": 1e-13})  # type: ignore[arg-type]
    network, optimizer = fresh(setting, params)
    before = weights(network.model).clone()
    trained(setting, params, 0, 1, network, optimizer)
    assert (weights(network.model) - before).abs().max() < 1e-7


@pytest.mark.parametrize("precision", ["fp32", "pure_bf16"])
def test_each_tensor_may_have_its_own(setting: Setting, precision: str) -> None:
    params = TrainParams(**PLAIN | {"step_in_backward": True, "max_grad_norm": None})  # type: ignore[arg-type]
    network = setting.network()
    if precision == "pure_bf16":
        network.model.to(torch.bfloat16)
    before = weights(network.model).clone()
    optimizer = optimizer_of(network.model, params, RuntimeParams(precision=precision))  # type: ignore[arg-type]
    trained(setting, params, 0, 2, network, optimizer)
    assert not torch.equal(weights(network.model), before)


@pytest.mark.slow
def test_its_loss_is_within_two_percent_of_adamw_over_200_steps(setting: Setting) -> None:
    found = []
    for optimizer in (AdamW(), EIGHT):
        params = TrainParams(**PLAIN | {"optimizer": optimizer, "learning_rate": 3e-4, "epochs": 40})  # type: ignore[arg-type]
        torch.manual_seed(0)
        found.append(trained(setting, params, 0, 200, *fresh(setting, params)))
    plain, eight = found
    assert sum(plain[-50:]) < 0.5 * sum(plain[:50]), "it learns"
    assert sum(eight) == pytest.approx(sum(plain), rel=0.02)


@pytest.mark.slow
def test_two_ranks_step_as_one(setting: Setting) -> None:
    params = TrainParams(**PLAIN | {"micro_batch_tokens": 48})  # type: ignore[arg-type]
    alone = rank_calls.steps(setting.folder, params, 3)
    together = run_on_ranks(RuntimeParams(device="cpu", devices=2), rank_calls.steps, setting.folder, params, 3)
    assert together == pytest.approx(alone, rel=1e-4)
