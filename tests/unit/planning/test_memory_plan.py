"""Predicted memory: counted by hand where that is possible, compared where it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apf_tasks.errors import ParamsError
from apf_tasks.evaluation.predictor import Placement, Predictor
from apf_tasks.examples import Examples, token_table
from apf_tasks.family import get_family
from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.family import family_params
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.planning._fake_tensors import tracked
from apf_tasks.planning._memory_advice import memory_options
from apf_tasks.planning.devices import GPUS, check_device, memory_bytes
from apf_tasks.planning.memory import APART, KERNELS, Memory, largest_step, predict, predict_step
from tests.support.paths import PROJECT
from tests.support.projects import apf

KIB = 1024


def test_what_comes_and_goes_is_counted() -> None:
    with tracked() as tracker:
        first = torch.zeros(KIB)
        second = first + 1
        view = second.view(2, -1)
        del first
        third = view * 2
        del second, view, third
        assert tracker.peak(0) == {"activations": 8 * KIB, "": 0}
        assert sum(size for _, size in tracker.events) == 0


def test_known_ids_decide_shapes_and_numbers_do_not() -> None:
    with tracked():
        ids = torch.tensor([[1, 2, 0], [3, 0, 0]])
        states = torch.zeros(2, 3, 5)
        assert states[ids != 0].shape == (3, 5)
        assert bool(torch.isfinite(states.sum()))


def examples(count: int = 8, length: int = 32) -> Examples:
    ids = [[5 + (i + j) % 300 for j in range(length)] for i in range(count)]
    return Examples(token_table({"input_ids": ids, "labels": [[i % 2] for i in range(count)]}))


def tiny(**changes: Any) -> Memory:
    """The prediction for a tiny BERT, with changes to how it trains and runs."""
    from transformers import AutoModelForSequenceClassification, BertConfig

    class Base:
        max_tokens, pad_id = 64, 0

    family = get_family(family_params("sentiment").model_validate({"name": "sentiment"}))
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}

    def make() -> Predictor:
        config = BertConfig(vocab_size=400, intermediate_size=128, max_position_embeddings=64, **sizes)
        model = AutoModelForSequenceClassification.from_config(config)
        dtype = torch.bfloat16 if changes.get("precision") == "bf16" else torch.float32
        return Predictor(model, Base(), family, ("a", "b"), Placement(torch.device("cpu"), dtype))  # type: ignore[arg-type]

    device = changes.pop("device", "cpu")
    runtime = RuntimeParams.model_validate({k: v for k, v in changes.items() if k in RuntimeParams.model_fields})
    told = {k: v for k, v in changes.items() if k in TrainParams.model_fields}
    return predict_step(make, examples(), TrainParams.model_validate({"batch_size": 8} | told), runtime, device)


def parameters() -> int:
    """Of the tiny BERT, by its formula."""
    h, inner = 64, 128
    layer = 4 * (h * h + h) + 2 * h * inner + inner + h + 4 * h
    return (400 + 64 + 2) * h + 2 * h + 3 * layer + h * h + h + 2 * h + 2


def test_the_parts_of_a_tiny_model() -> None:
    memory = tiny(micro_batch_tokens=64)  # several passes: all gradients are there at the peak
    weights = 4 * parameters()
    assert weights <= memory.weights <= weights + 8 * 2 * 64  # and two rows of positions and types
    assert memory.gradients == weights
    assert 2 * weights <= memory.optimizer <= 2 * weights + 4 * 60  # a count of steps for each tensor
    assert memory.libraries > 100 * 2**20
    assert memory.total == sum(vars(memory).values())


def test_less_memory_is_predicted_where_there_is_less() -> None:
    plain = tiny()
    assert tiny(activations="recompute").activations < tiny(activations="selective").activations < plain.activations
    assert tiny(optimizer="adafactor").optimizer < plain.optimizer / 10
    assert tiny(optimizer={"name": "sgd", "momentum": 0}).optimizer == 0
    updated = tiny(step_in_backward=True, max_grad_norm=None)
    assert updated.gradients == 0
    assert tiny(micro_batch_tokens=64).activations < plain.activations


def test_a_gpu_is_another_matter() -> None:
    one = tiny(device="h100-80gb", micro_batch_tokens=64)
    shared = tiny(device="h100-80gb", micro_batch_tokens=64, devices=2, shard=True)
    assert shared.weights == -(-one.weights // 2)
    assert shared.optimizer == -(-one.optimizer // 2)
    eight = tiny(device="h100-80gb", optimizer="adamw_8bit").optimizer
    assert eight == int((2 + 8 / 256) * parameters())
    with pytest.raises(ParamsError, match="adamw_8bit, which is for cuda"):
        tiny(optimizer="adamw_8bit")


def test_holes_of_the_heap_can_be_told_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(APART, raising=False)
    with_holes = tiny()
    monkeypatch.setenv(APART, "1048576")
    without = tiny()
    assert without.activations == with_holes.activations
    assert KERNELS <= without.workspace < with_holes.workspace


def test_the_heaviest_step_has_its_first_two_passes() -> None:
    lengths = [4, 30, 30, 6, 5, 3, 31, 2]
    rows = Examples(token_table({"input_ids": [[1] * n for n in lengths], "labels": [[0]] * 8}))
    whole = TrainParams(batch_size=8, micro_batch_tokens=62)
    assert sorted(lengths[i] for i in largest_step(rows, whole)) == [30, 30, 31]
    assert len(largest_step(rows, whole.model_copy(update={"step_in_backward": True}))) == 8
    small = whole.model_copy(update={"micro_batch_tokens": 36})
    assert sorted(lengths[i] for i in largest_step(rows, small, padding_free=True)) == [5, 6, 30, 31]


def test_devices_have_names_and_sizes() -> None:
    assert memory_bytes(check_device("a100-40gb")) == 40 * 10**9
    assert not [name for name, size in GPUS.items() if not name.endswith(f"-{size}gb")], "names end with the size"
    assert memory_bytes("cpu") > 2**28
    with pytest.raises(ParamsError, match="expected cpu, "):
        check_device("abacus")


@pytest.mark.slow
def test_a_plan_predicts_and_says_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from apf_tasks.cache.journal import journal
    from apf_tasks.params.file import load_params
    from apf_tasks.pipelines import pipeline
    from apf_tasks.planning.estimates import estimate
    from flows.cli.runs._memory import plan_memory, print_memory

    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / "mlruns"))
    file = str(PROJECT / "params" / "smoke" / "sentiment.yaml")
    assert apf("plan", file, "--memory", "--json") == 0
    found = json.loads(capsys.readouterr().out)["estimate"]["memory"]
    assert found["fits"]
    assert found["parts"]["weights"] > 4 * 100_000
    assert apf("plan", file, "--device", "h100-80gb") == 0
    assert "Fits into" in " ".join(capsys.readouterr().out.split())

    params = load_params(file)
    with journal(dry=True) as book:
        pipeline(params)
    known = estimate(book.stage_runs, params)
    assert known is not None
    trial = TrainingInputs(*(known.trainings[0].arguments[name] for name in TrainingInputs._fields))
    before = predict(trial, "h100-80gb")
    changes = memory_options(trial, "h100-80gb", before.total - 1)
    assert changes[0].overrides[0].startswith("train.micro_batch_tokens=")
    assert not [change for change in changes if change.memory.total >= before.total], "each change saves memory"
    assert ("train.optimizer=adafactor",) in [change.overrides for change in changes]
    assert memory_options(trial, "cpu", 1) == []
    from rich.console import Console

    planned = plan_memory(known.trainings, "h100-80gb")
    print_memory(Console(width=80), replace(planned, device_bytes=10**6, changes=tuple(changes)))
    out = capsys.readouterr().out
    assert "Does not fit" in out
    assert "train.optimizer=adafactor" in out


def test_pure_bfloat16_is_half() -> None:
    plain, pure = tiny(micro_batch_tokens=64), tiny(micro_batch_tokens=64, precision="pure_bf16")
    assert pure.weights < 0.6 * plain.weights
    assert pure.optimizer < 0.6 * plain.optimizer
