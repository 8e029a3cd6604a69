"""Optimizers against their formulas, and what must hold whichever is used. Those for CUDA are only refused here."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from apf_tasks.errors import DivergedError, ParamsError
from apf_tasks.params.file import load_params
from apf_tasks.params.optimizers import SGD, Adafactor, AdamW, Muon, OffloadedAdamW
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.training.activation_checkpointing import apply_activation_checkpointing
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.from_params import build, hidden_matrices
from apf_tasks.training.optim.joined import OptimizerInBackward
from apf_tasks.training.optim.optimizers import check_optimizer, optimizer_of
from tests.support.paths import PROJECT
from tests.unit.training.test_loop import Setting, weights

HERE: list[dict[str, Any]] = [{"name": "adamw"}, {"name": "adafactor"}, {"name": "sgd"}, {"name": "sgd", "momentum": 0}]
OFFLOADED = OffloadedAdamW(name="adamw_offload")
OPTIMIZERS = [AdamW(), Adafactor(name="adafactor"), SGD(name="sgd"), Muon(name="muon")]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "tiny")


def one_parameter(rows: int = 6, columns: int = 4) -> torch.nn.Linear:
    torch.manual_seed(0)
    layer = torch.nn.Linear(columns, rows, bias=False)
    layer.weight.grad = torch.randn(rows, columns)
    return layer


def test_adafactor_by_its_formula() -> None:
    layer = one_parameter()
    before, gradient = layer.weight.detach().double(), layer.weight.grad.double()  # type: ignore[union-attr]
    optimizer = build(Adafactor(name="adafactor"), layer, 0.01, 0.0)
    mean = torch.zeros_like(gradient)
    for step in (1, 2):
        optimizer.step()
        decay = 1 - step**-0.8
        squares = gradient**2 + 1e-30
        mean = decay * mean + (1 - decay) * squares  # rows and columns of the mean are the means of rows and columns
        row, column = mean.mean(1, keepdim=True), mean.mean(0, keepdim=True)
        update = gradient / (row @ column / row.mean()).sqrt()
        update /= max(1.0, float(update.square().mean().sqrt()))
        before = before - 0.01 * update
    torch.testing.assert_close(layer.weight.detach().double(), before, rtol=1e-4, atol=1e-6)


def test_sgd_by_its_formula() -> None:
    layer = one_parameter()
    before, gradient = layer.weight.detach().clone(), layer.weight.grad
    assert gradient is not None
    optimizer = build(SGD(name="sgd"), layer, 0.1, 0.0)
    optimizer.step()
    optimizer.step()
    first, second = gradient, 0.9 * gradient + gradient
    expected = before - 0.1 * (gradient + 0.9 * first) - 0.1 * (gradient + 0.9 * second)
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_muon_turns_the_matrices_of_the_layers_by_their_directions(setting: Setting) -> None:
    model = setting.model()
    names = {id(p): name for name, p in model.named_parameters()}
    matrices = hidden_matrices(model)
    assert len(matrices) == 2 * 6  # query, key, value, output and two maps between, in two layers
    assert not [names[id(p)] for p in matrices if "layer" not in names[id(p)]], "matrices of the layers alone"
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = copy.deepcopy(model)
    for parameter, other in zip(plain.parameters(), model.parameters(), strict=True):
        parameter.grad = other.grad
    build(Muon(name="muon"), model, 1e-2, 0.0).step()
    build(AdamW(), plain, 1e-2, 0.0).step()
    others = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        moved = parameter.detach() - before[name]
        if any(parameter is matrix for matrix in matrices):
            spectrum = torch.linalg.svdvals(moved) / (1e-2 * 0.2 * math.sqrt(max(moved.shape)))
            assert 0.7 < spectrum.median() <= spectrum.max() < 1.3, name  # near 1 after five iterations
        else:
            torch.testing.assert_close(parameter, others[name])


@pytest.mark.parametrize("passes", [10_000, 64])
def test_adamw_in_the_memory_of_the_cpu_is_adamw(setting: Setting, passes: int) -> None:
    """Also where a gradient is clipped, and the sum of several passes."""
    found = []
    for options in (AdamW(), OFFLOADED):
        network, params = setting.network(), TrainParams(batch_size=8, max_grad_norm=0.1, micro_batch_tokens=passes)
        optimizer = build(options, network.model, 1e-3, 0.01)
        losses = [step.loss for step in train_steps(network, optimizer, setting.examples(), params)]
        found.append((losses, weights(network.model)))
    (plain, ours), (offloaded, theirs) = found
    assert plain == offloaded
    torch.testing.assert_close(theirs, ours, rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, OFFLOADED], ids=lambda optimizer: optimizer.name)
def test_it_trains_every_tensor_and_resumes_with_the_same_bits(setting: Setting, optimizer: Any) -> None:
    params = TrainParams(learning_rate=1e-3, epochs=2, batch_size=8, optimizer=optimizer)

    def fresh() -> tuple[Any, torch.optim.Optimizer]:
        network = setting.network()
        return network, build(optimizer, network.model, params.learning_rate, params.weight_decay)

    whole, built = fresh()
    start = {name: p.detach().clone() for name, p in whole.model.named_parameters()}
    list(train_steps(whole, built, setting.examples(), params))
    assert [name for name, p in whole.model.named_parameters() if torch.equal(p, start[name])] == []

    half, built = fresh()
    for step in train_steps(half, built, setting.examples(), params):
        if step.step == 4:
            break
    kept = copy.deepcopy((half.model.state_dict(), built.state_dict()))
    rest, built = fresh()
    rest.model.load_state_dict(kept[0])
    built.load_state_dict(kept[1])
    list(train_steps(rest, built, setting.examples(), params, start=4))
    torch.testing.assert_close(weights(rest.model), weights(whole.model), rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", HERE, ids=lambda section: "-".join(map(str, section.values())))
def test_a_step_in_the_backward_pass_is_the_same_step(setting: Setting, optimizer: dict[str, Any]) -> None:
    told: dict[str, Any] = {"optimizer": optimizer, "max_grad_norm": None}
    plain, losses = setting.train(micro_batch_tokens=10**6, **told)
    early, early_losses = setting.train(step_in_backward=True, **told)
    assert early_losses == losses
    torch.testing.assert_close(weights(early), weights(plain), rtol=0, atol=0)
    kept = [name for name, parameter in early.named_parameters() if parameter.grad is not None]
    assert kept == [], "no gradient is kept"


def test_a_step_in_the_backward_pass_holds_few_gradients(setting: Setting) -> None:
    params = TrainParams(learning_rate=1e-3, epochs=1, batch_size=8, step_in_backward=True, max_grad_norm=None)
    network = setting.network()
    held: list[int] = []
    parameters = list(network.model.parameters())
    optimizer = optimizer_of(network.model, params, RuntimeParams())
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(lambda _: held.append(sum(p.grad is not None for p in parameters)))
    steps = list(train_steps(network, optimizer, setting.examples(), params))
    assert max(held) == 0, "a gradient is gone when the next one comes"
    assert len(held) == len(steps) * len(parameters)
    assert isinstance(optimizer, OptimizerInBackward)
    assert min(step.grad_norm for step in steps) > 0


def test_a_gradient_that_is_no_number_is_not_used(setting: Setting) -> None:
    params = TrainParams(learning_rate=1e-3, epochs=1, batch_size=8, step_in_backward=True, max_grad_norm=None)
    network = setting.network()
    network.model.classifier.weight.data[0, 0] = math.nan
    before = weights(network.model)
    with pytest.raises(DivergedError, match="a finite gradient"):
        list(train_steps(network, optimizer_of(network.model, params, RuntimeParams()), setting.examples(), params))
    assert torch.equal(weights(network.model).isnan(), before.isnan()), "no other weight became NaN"


@pytest.mark.parametrize("activations", ["recompute", "selective"])
def test_layers_computed_again_give_the_same_bits(tmp_path: Path, activations: str) -> None:
    setting = Setting(tmp_path / "tiny", dropout=0.1)
    params = TrainParams(learning_rate=1e-3, epochs=1, batch_size=8)
    found = []
    for how in ("keep", activations):
        network, calls = setting.network(), []
        apply_activation_checkpointing(network.model, how)
        network.model.base_model.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        optimizer = optimizer_of(network.model, params, RuntimeParams())
        losses = [step.loss for step in train_steps(network, optimizer, setting.examples(), params)]
        found.append((losses, weights(network.model), len(calls)))
    (losses, moved, once), (again, moved_again, twice) = found
    assert again == losses
    torch.testing.assert_close(moved_again, moved, rtol=0, atol=0)
    assert twice == 2 * once, "each layer is computed again in the backward pass"


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda options: options.name)
def test_matrices_decay_and_biases_and_norms_do_not(setting: Setting, options: Any) -> None:
    model = setting.model()
    groups = build(options, model, 1e-3, 0.1).param_groups
    found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    decays = {name: found[id(p)] for name, p in model.named_parameters()}
    assert decays == {name: 0.1 if p.dim() > 1 else 0.0 for name, p in model.named_parameters()}


def test_what_does_not_go_together_is_said() -> None:
    for name in ("adamw_8bit", "adamw_offload", "muon"):
        with pytest.raises(ParamsError, match=rf"an optimizer for cpu, found {name}, which is for cuda"):
            check_optimizer(TrainParams(optimizer={"name": name}), RuntimeParams(), "cpu", 1)  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match="adamw_offload on 2: each would keep all weights, gradients and moments in"):
        check_optimizer(TrainParams(optimizer=OFFLOADED), RuntimeParams(devices=2), "cuda", 2)
    with pytest.raises(ParamsError, match="sharded tensors"):
        check_optimizer(TrainParams(optimizer={"name": "adafactor"}), RuntimeParams(shard=True), "cpu", 1)  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match="offload` with a CUDA device"):
        check_optimizer(TrainParams(), RuntimeParams(activations="offload"), "cpu", 1)
    with pytest.raises(ValidationError, match="needs `max_grad_norm:`"):
        TrainParams(step_in_backward=True)
    with pytest.raises(ValidationError, match="a per-tensor optimizer, not muon"):
        TrainParams(step_in_backward=True, max_grad_norm=None, optimizer={"name": "muon"})  # type: ignore[arg-type]
    for given, said in (
        ("train.optimizer={name: sgd, beta1: 0.5}", "train.optimizer.beta1: unknown key"),
        ("train.optimizer={momentum: 0.5}", "train.optimizer.momentum: unknown key"),
        ("train.optimizer=adam", "train.optimizer: expected a name of adamw, .*, muon, found 'adam'"),
    ):
        with pytest.raises(ParamsError, match=said):
            load_params(PROJECT / "params" / "sentiment.yaml", [given])
    assert TrainParams(optimizer={"beta1": 0.8}).optimizer == AdamW(beta1=0.8)  # type: ignore[arg-type]
