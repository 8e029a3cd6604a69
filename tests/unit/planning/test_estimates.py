"""What a plan says its trainings take, counted by hand, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from apf_tasks.cache.journal import journal
from apf_tasks.params.file import load_params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.pipelines import pipeline
from apf_tasks.planning._usual_rates import USUAL, check_learning_rates, kind_of
from apf_tasks.planning.estimates import Estimate, Training, count_parameters, estimate
from flows.cli.runs.plan import estimate_plan
from tests.support.paths import PROJECT
from tests.support.projects import apf
from tests.support.tiny import review_rows, write_jsonl

ENCODER = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}


def base(folder: Path, config: dict[str, object] = ENCODER) -> Path:
    """A model folder of 24 parameters."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros((4, 5), np.float16), "b": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder


def params_in(folder: Path, text: str = "") -> Path:
    write_jsonl(folder / "rows.jsonl", review_rows(40))
    file = folder / "p.yaml"
    file.write_text(f"family: sentiment\ndata: {{source: {folder}/rows.jsonl}}\nmodel: {{base: {folder}/base}}\n{text}")
    return file


def test_steps_and_validations() -> None:
    params = TrainParams(epochs=2.5, batch_size=16)
    training = Training("", params, {}, examples=100, exact=True)  # 7 steps an epoch, a validation every 4
    assert (training.steps, training.validations) == (18, 5)
    sparse = params.model_copy(update={"evaluate_every_steps": 100})
    assert Training("", sparse, {}, examples=100, exact=True).validations == 1
    assert Training("", params, {}, examples=None, exact=False).steps is None
    cut_short = Training("", params, {}, examples=100, exact=True, until=9)
    assert (cut_short.steps, cut_short.whole_steps, cut_short.validations) == (9, 18, 3)


def test_parameters_are_counted_from_headers(tmp_path: Path) -> None:
    folder = base(tmp_path / "base")
    assert count_parameters(folder) == 24
    save_file({"c": np.zeros((2, 3), np.float32)}, folder / "model-2.safetensors", {"format": "pt"})  # no tensor
    assert count_parameters(folder) == 30
    (folder / "model-2.safetensors").write_bytes(b"not a header")
    assert count_parameters(folder) is None
    assert count_parameters(tmp_path) is None


def trained_bytes(found: Estimate, **runtime: Any) -> int | None:
    """Of the same trainings in another runtime."""
    how = {"runtime": RuntimeParams(**runtime)}
    trainings = tuple(replace(training, arguments=training.arguments | how) for training in found.trainings)
    return replace(found, trainings=trainings).trained_bytes


def test_a_plan_is_estimated_from_what_is_at_hand(tmp_path: Path) -> None:
    base(tmp_path / "base")
    space = "search: {space: {train.learning_rate: [2e-5, 5e-3]}}\n"
    params = load_params(params_in(tmp_path, space))
    with journal(dry=True) as book:
        pipeline(params)
    found = estimate(book.stage_runs, params)
    assert found is not None
    assert [training.label for training in found.trainings] == ["learning_rate=2e-05", "learning_rate=0.005"]
    assert (found.parameters, found.kept_bytes, found.most_bytes) == (24, 24 * 4, 24 * (4 + 36))
    assert found.trained_bytes == 24 * 16
    assert trained_bytes(found, precision="pure_bf16") == 24 * 8, "all of it in two bytes"
    assert trained_bytes(found, shard=True, devices=2) == 24 * 8, "half on each"
    assert found.steps is None  # nobody has split the rows
    [warning] = found.warnings
    assert warning.startswith("train.learning_rate 0.005 is far above what is usual for encoders, 1e-05 to 0.0001")
    asked = estimate_plan(book.stage_runs, params, measure=True)  # cannot measure: nothing is tokenized
    assert asked is not None
    assert asked.speed is None
    assert estimate([v for v in book.stage_runs if v.stage != "train_model"], params) is None


def test_a_plan_that_measures_makes_the_rows_ready_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / "mlruns"))
    command = ["plan", str(PROJECT / "params" / "smoke" / "sentiment.yaml"), "--json"]
    plans = []
    for further in ([], ["--measure"], []):
        assert apf(*command, *further) == 0
        plans.append(json.loads(capsys.readouterr().out))
    status = [{v["stage"]: v["status"] for v in plan["stages"]} for plan in plans]
    preparing = ("ingest", "split_rows", "build_base", "tokenize")
    assert [[s[name] for name in preparing] for s in status] == [["runs"] * 4, ["ran"] * 4, ["reused"] * 4]
    assert [(s["train_model"], s["evaluate"]) for s in status] == [("runs", "runs")] * 3
    first, measured, last = (plan["estimate"] for plan in plans)
    assert (first["steps"], first["seconds"]) == (None, None)
    assert measured["steps"] == last["steps"] == 144
    assert min(measured["seconds"]) > 0, "each step took time"
    assert measured["peak_gib"] > 0.1
    assert not list((tmp_path / "mlruns" / "stages").glob("train_model/*"))


def test_a_trial_that_is_compared_on_its_way_counts_once(tmp_path: Path) -> None:
    base(tmp_path / "base")
    rates = "{train.learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}}"
    params = load_params(
        params_in(tmp_path, f"search: {{strategy: random, trials: 6, halving: {{}}, space: {rates}}}\n")
    )
    with journal(dry=True) as book:
        pipeline(params)
    found = estimate(book.stage_runs, params)
    assert found is not None
    assert len({training.label for training in found.trainings}) == len(found.trainings) == 6
    known = [replace(training, examples=160, until=16) for training in found.trainings[2:]]
    known += [replace(training, examples=160) for training in found.trainings[:2]]
    assert replace(found, trainings=tuple(known)).steps == 4 * 16 + 2 * 30


def test_a_plan_with_estimates_needs_no_torch(tmp_path: Path) -> None:
    base(tmp_path / "base")
    script = (
        "import sys; from flows.cli.main import main\n"
        f"try: main(['plan', {str(params_in(tmp_path))!r}])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'mlflow', 'prefect', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "Disk: about" in done.stdout
    assert "Memory: " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (ENCODER, "encoder"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "t5"),
        ({"model_type": "marian", "architectures": ["MarianMTModel"], "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "decoder"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "decoder"),
    ],
)
def test_the_kind_of_a_model_is_read_from_its_configuration(
    config: dict[str, object], kind: str, tmp_path: Path
) -> None:
    folder = base(tmp_path / "base", config)
    assert kind_of(ModelParams(base=str(folder)), folder, "sentiment") == kind
    assert kind_of(ModelParams(base="some/name"), None, "causal_lm") == "decoder"
    assert kind_of(ModelParams(base="some/name"), None, "translation") is None
    scratch = ModelParams(init="scratch", architecture="bert")
    assert kind_of(scratch, folder, "sentiment") == "scratch"


def test_only_far_outside_is_warned_of() -> None:
    rates = [TrainParams(learning_rate=rate) for rate in (2e-6, 4e-6, 5e-5, 3e-4, 4e-4, 4e-4)]
    warnings = check_learning_rates("encoder", rates)
    assert [w.split()[1] for w in warnings] == ["2e-06", "0.0004"]
    assert "far below" in warnings[0]
    assert "far above" in warnings[1]
    assert all(USUAL["encoder"].source in warning for warning in warnings)
    assert check_learning_rates(None, rates) == []
