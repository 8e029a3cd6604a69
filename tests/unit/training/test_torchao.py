"""torchao's optimizers, driven as a training drives them. Skipped without torchao (`pip install 'apf[cuda]'`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apf_tasks.evaluation.predictor import Placement, Predictor
from apf_tasks.params.optimizers import AdamW8bit
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training.checkpoints import Checkpointer, TrainerState, load_checkpoint
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.from_params import build
from apf_tasks.training.optim.optimizers import optimizer_of
from tests.unit.training.test_loop import Setting, weights

pytest.importorskip("torchao")

CUDA = torch.cuda.is_available()
NAMES = ["adamw_8bit", "adamw_offload"]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "tiny")


@pytest.mark.xfail(strict=True, reason="its learning rate is replaced by a number, and torchao wants a tensor changed")
def test_adamw_8bit_steps_with_the_learning_rate_of_a_schedule(setting: Setting) -> None:
    model = setting.model()
    network = setting.network(model)
    before = weights(model).clone()
    optimizer = build(AdamW8bit(name="adamw_8bit"), model, 1e-3, 0.0)
    next(train_steps(network, optimizer, setting.examples(), TrainParams(batch_size=8)))
    assert not torch.equal(weights(model), before)


class OnCuda:
    """A training on CUDA with one of these optimizers."""

    def __init__(self, setting: Setting, name: str, **values: Any) -> None:
        self.params = TrainParams(optimizer=name, batch_size=8, learning_rate=1e-3, warmup_fraction=0.0, **values)  # type: ignore[arg-type]
        self.model = setting.model().to("cuda")  # type: ignore[arg-type]
        place = Placement(torch.device("cuda"), torch.float32)
        self.network: Predictor = replace(setting.network(self.model), place=place)
        self.optimizer = optimizer_of(self.model, self.params, RuntimeParams(device="cuda"))
        self.examples = setting.examples()

    def steps(self, start: int, count: int) -> torch.Tensor:
        """The weights after so many steps."""
        loop = train_steps(self.network, self.optimizer, self.examples, self.params, start)
        for _ in range(count):
            next(loop)
        return weights(self.model).cpu()


@pytest.mark.skipif(not CUDA, reason="these optimizers are for CUDA")
@pytest.mark.xfail(
    strict=True, reason="a learning rate that is a number, and no hooks: the first step ends in an error"
)
@pytest.mark.parametrize("name", NAMES)
def test_a_training_steps_is_saved_and_goes_on(setting: Setting, name: str, tmp_path: Path) -> None:
    whole = OnCuda(setting, name).steps(0, 4)
    first, second = OnCuda(setting, name), OnCuda(setting, name)
    with Checkpointer(tmp_path, first.model, first.optimizer, sharded=False) as kept:
        first.steps(0, 2)
        kept.save_async(TrainerState(step=2))
    found = load_checkpoint(tmp_path, second.model, second.optimizer)
    assert found is not None
    torch.testing.assert_close(second.steps(found.step, 2), whole, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not CUDA, reason="these optimizers are for CUDA")
@pytest.mark.xfail(strict=True, reason="the first crashes; the other copies gradients away before they are clipped")
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_is_clipped_before_it_is_used(setting: Setting, name: str) -> None:
    """Down to far below epsilon, where AdamW hardly moves a weight."""
    training = OnCuda(setting, name, max_grad_norm=1e-13, weight_decay=0.0)
    before = weights(training.model).cpu()
    assert (training.steps(0, 1) - before).abs().max() < 1e-5
