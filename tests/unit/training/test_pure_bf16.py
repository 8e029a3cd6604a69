"""Weights that are bfloat16 between steps, and layers that are compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from apf_tasks.errors import ParamsError
from apf_tasks.params.optimizers import AdamW
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training._compile import GAIN, WAIT_SECONDS, Compiler, is_worth_compiling
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim._bf16 import StochasticRoundingOptimizer, rounded
from apf_tasks.training.optim.from_params import from_param_groups
from apf_tasks.training.optim.optimizers import check_optimizer, optimizer_of
from tests.unit.training.test_loop import Setting, weights

PURE = RuntimeParams(device="cpu", precision="pure_bf16")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "tiny")


def compiled(model: torch.nn.Module) -> int:
    """How many of its parts are compiled."""
    return sum(module._compiled_call_impl is not None for module in model.modules())


def pure(setting: Setting) -> Any:
    network = setting.network()
    network.model.to(torch.bfloat16)
    return replace(network, place=replace(network.place, dtype=torch.bfloat16))


def test_rounding_is_right_in_the_mean_and_to_one_of_two_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    step = 2.0**-7  # between bfloat16 numbers from 1 to 2
    for value in (1 + step / 8, -1 - step / 3, 3e-30, 0.0):
        found = rounded(torch.full((100_000,), value), generator).double()
        low, high = found.min(), found.max()
        assert high - low <= step * max(abs(value), 1e-30)
        assert low <= value <= high
        assert float(found.mean()) == pytest.approx(value, rel=step / 100)
    exact = torch.tensor([1.5, -2.0, float("inf"), float("-inf"), float("nan")])
    torch.testing.assert_close(rounded(exact, generator).float()[:4], exact[:4], rtol=0, atol=0)
    assert rounded(exact, generator)[4].isnan()


def test_updates_smaller_than_a_bfloat16_step_are_not_lost() -> None:
    weight = torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = StochasticRoundingOptimizer(
        {"params": [weight], "weight_decay": 0.0}, lambda group: from_param_groups(AdamW(), group, 1e-4), 0
    )
    for _ in range(20):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert float(weight.detach().float().mean()) == pytest.approx(1 - 20 * 1e-4, rel=2e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "sgd"])
def test_it_learns_like_float32_and_resumes_with_the_same_bits(setting: Setting, optimizer: str) -> None:
    rate = {"sgd": 0.1}.get(optimizer, 5e-3)
    params = TrainParams.model_validate(
        {"learning_rate": rate, "epochs": 8, "batch_size": 8, "optimizer": optimizer, "schedule": "constant"}
    )
    network = pure(setting)
    built = optimizer_of(network.model, params, PURE)
    halfway: dict[str, Any] = {}
    losses = []
    for step in train_steps(network, built, setting.examples(), params):
        losses.append(step.loss)
        if step.step == 10:
            halfway = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
            state = built.state_dict()
            kept = torch.load(_written(state, setting.folder / "state.pt"), weights_only=True)
    assert {parameter.dtype for parameter in network.model.parameters()} == {torch.bfloat16}
    exact = setting.train(**params.model_dump())[1]
    assert optimizer == "sgd" or np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert np.mean(losses) == pytest.approx(np.mean(exact), rel=0.15)
    again = pure(setting)
    again.model.load_state_dict(halfway)
    its = optimizer_of(again.model, params, PURE)
    its.load_state_dict(kept)
    list(train_steps(again, its, setting.examples(), params, start=10))
    torch.testing.assert_close(weights(again.model), weights(network.model), rtol=0, atol=0)


def _written(state: dict[str, Any], path: Path) -> Path:
    torch.save(state, path)
    return path


def test_moments_take_two_bytes_each_and_gradients_none_in_the_backward_pass(setting: Setting) -> None:
    params = TrainParams(epochs=1, batch_size=8, step_in_backward=True, max_grad_norm=None)
    network = pure(setting)
    optimizer = optimizer_of(network.model, params, PURE)
    list(train_steps(network, optimizer, setting.examples(), params))
    states = [value for part in optimizer.state_dict().values() for value in part["state"][0].values()]
    kept = sum(value.nbytes for value in states if value.numel() > 1)
    numbers = sum(p.numel() for p in network.model.parameters() if p.numel() > 1)
    assert kept == 4 * numbers, "two moments of two bytes"
    left = [name for name, parameter in network.model.named_parameters() if parameter.grad is not None]
    assert left == [], "no gradient is kept"


def test_what_does_not_go_with_it_is_said() -> None:
    with pytest.raises(ValidationError, match="pure_bf16 is for one device"):
        RuntimeParams(precision="pure_bf16", devices=2)
    with pytest.raises(ParamsError, match=r"single tensors, for runtime\.precision=pure_bf16, found muon"):
        check_optimizer(TrainParams(optimizer={"name": "muon"}), PURE, "cuda", 1)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler warns of torch
def test_compiled_layers_compute_the_same(setting: Setting) -> None:
    params = TrainParams(learning_rate=1e-3, epochs=1, batch_size=8)
    found = []
    for how in ("off", "on"):
        network = setting.network()
        compiler = Compiler(network.model, RuntimeParams(compile=how), network.place)  # type: ignore[arg-type]
        optimizer = optimizer_of(network.model, params, RuntimeParams())
        losses = []
        for step in train_steps(network, optimizer, setting.examples(), params):
            losses.append(step.loss)
            compiler.observe_step(step.seconds, 5 - step.step)
        found.append((losses, compiled(network.model)))
    (losses, none), (again, layers) = found
    assert (none, layers) == (0, 2)
    assert again == pytest.approx(losses, rel=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # by torch itself, on its import
def test_layers_are_compiled_when_the_rest_repays_it(setting: Setting) -> None:
    assert is_worth_compiling(1.0, int(WAIT_SECONDS / GAIN) + 1), "one step more than repays it"
    assert not is_worth_compiling(1.0, int(WAIT_SECONDS / GAIN) - 1), "one step fewer"
    on_cuda = replace(setting.network().place, device=torch.device("cuda"))
    for place, left, expected in ((on_cuda, 10**6, 2), (on_cuda, 3, 0), (setting.network().place, 10**6, 0)):
        model = setting.model()
        compiler = Compiler(model, RuntimeParams(), place)
        for _ in range(10):
            compiler.observe_step(1.0, left)
        assert compiled(model) == expected
