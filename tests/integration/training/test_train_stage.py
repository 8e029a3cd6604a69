"""The train stage by itself: killed and continued, recorded once, refused when something does not move."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from apf_tasks.artifacts import Rung, Split, TokenizedSplit, TrainedModel
from apf_tasks.cache.store import CHECKPOINT_DIR
from apf_tasks.data.tokenization import tokenize
from apf_tasks.errors import ModelError
from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams, TrainParams
from apf_tasks.tracking import run_logger, tracker
from apf_tasks.training.rung import train_rung
from apf_tasks.training.train import train_model
from tests.support.tiny import review_rows, tiny_bert

FAMILY = FamilyParams(name="sentiment")
PARAMS = TrainParams(learning_rate=2e-3, epochs=6, batch_size=8, evaluate_every_steps=7)

SCRIPT = """
import sys
from pathlib import Path
from typing import Any
from tests.integration.training import test_train_stage as t
folder, out, minutes, devices = sys.argv[1:]
params = t.PARAMS if devices == "1" else __import__("tests.integration.training.test_ranks", fromlist=["LONGER"]).LONGER
t.train(Path(folder), Path(out), float(minutes), params, devices=int(devices), shard=devices == "2")
"""

PATIENCE_SECONDS = 1200
"""Longer than the slowest machine needs to import and start; only a hang takes so long."""


def prepared(folder: Path) -> Path:
    """A tiny base and two tokenized splits under `folder`."""
    rows = pd.DataFrame(review_rows(160)).assign(row_id=[f"r{i}" for i in range(160)])
    (folder / "split").mkdir(parents=True)
    parts = {"train": rows.iloc[:120], "validation": rows.iloc[120:], "test": rows.iloc[120:]}
    for name, part in parts.items():
        part.to_parquet(folder / "split" / f"{name}.parquet", index=False)
    split = Split(
        path=folder / "split",
        fingerprint="by hand",
        rows={"train": 120, "validation": 40, "test": 40},
        dropped_duplicates=0,
        dropped_conflicts=0,
        near_duplicate_groups=0,
        dropped_near_duplicates=0,
        label_names=("negative", "positive"),
        method="random",
        seed=0,
    )
    tiny_bert(folder / "base", rows["text"].tolist())
    for name in ("train", "validation"):
        (folder / name).mkdir()
        handle = tokenize(folder / name, split, name, ModelParams(base=str(folder / "base"), max_tokens=64), FAMILY)  # type: ignore[arg-type]
        (folder / f"{name}.json").write_text(handle.model_dump_json())
    return folder


def train(
    folder: Path, out: Path, checkpoint_minutes: float = 5, params: TrainParams = PARAMS, **runtime: Any
) -> TrainedModel:
    """The plain stage function."""
    out.mkdir(parents=True, exist_ok=True)
    return train_model(out, inputs(folder, params, checkpoint_minutes=checkpoint_minutes, **runtime))


def reached(folder: Path, out: Path, params: TrainParams, until: int, **runtime: Any) -> Rung:
    """The same to a step, where it is left for whoever goes on."""
    (out / "rung").mkdir(parents=True, exist_ok=True)
    return train_rung(out / "rung", out, "by hand", inputs(folder, params, **runtime), until)


def inputs(folder: Path, params: TrainParams, **runtime: Any) -> TrainingInputs:
    """What was prepared under `folder`, to be trained in that way."""
    splits = [TokenizedSplit.model_validate_json((folder / f"{n}.json").read_text()) for n in ("train", "validation")]
    model = ModelParams(base=str(folder / "base"), max_tokens=64)
    how = RuntimeParams(precision="fp32", **runtime)
    return TrainingInputs(*splits, model, FAMILY, params, how, "accuracy")


def started(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """The same in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], text=True, stderr=subprocess.PIPE)


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until it did, however slow the machine is; a process that ends first, or never comes so far, is a failure."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        if time.monotonic() > deadline:
            process.kill()  # it would be a warning in whichever test runs next
            raise AssertionError(f"expected it within {PATIENCE_SECONDS} s. It wrote:\n{process.communicate()[1]}")
        time.sleep(0.01)


def states(out: Path) -> list[str]:
    """The checkpoints under `out`, by their steps."""
    return sorted(path.name for path in (out / CHECKPOINT_DIR).glob("state-*"))


def points(run_id: str, metric: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in tracker.client().get_metric_history(run_id, metric)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared"))


def test_a_trial_learns_and_is_recorded(folder: Path, tmp_path: Path) -> None:
    trained = train(folder, tmp_path / "out")
    assert trained.parameters == trained.trainable_parameters == trained.parameters_changed > 10_000
    assert trained.scores["accuracy"] > 0.9
    assert trained.optimizer_steps == 90
    assert 0 <= trained.padding_fraction < 0.3
    run = tracker.client().get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.learning_rate"] == "0.002"
    assert [step for step, _ in points(trained.run_id, "train/loss")] == list(range(1, 91))
    assert [step for step, _ in points(trained.run_id, "validation/accuracy")] == [*range(7, 91, 7), 90]
    predictions = pd.read_parquet(tmp_path / "out" / "validation.parquet")
    assert (predictions["reference"] == predictions["prediction"]).mean() == pytest.approx(trained.scores["accuracy"])
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["id2label"] == {
        "0": "negative",
        "1": "positive",
    }


def test_killed_at_any_moment_it_continues_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    whole = train(folder, tmp_path / "whole")
    out = tmp_path / "killed"
    for wait in (0.0, 0.15):
        before = states(out)
        process = started([str(folder), str(out), "0", "1"])
        wait_for(lambda: states(out) > before, process)  # noqa: B023
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    continued = train(folder, out)
    assert continued.resumed_from_step
    assert continued.resumed_from_step > 1
    assert continued.fingerprint == whole.fingerprint  # weights and validation predictions, bit for bit
    first, second = (load_file(p / "model" / "model.safetensors") for p in (tmp_path / "whole", out))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    # one MLflow run, and every point in it once
    assert points(continued.run_id, "train/loss") == points(whole.run_id, "train/loss")
    assert points(continued.run_id, "validation/accuracy") == points(whole.run_id, "validation/accuracy")
    assert tracker.client().get_run(continued.run_id).info.status == "FINISHED"


def test_sigterm_saves_a_checkpoint_first(folder: Path, tmp_path: Path) -> None:
    process = started([str(folder), str(tmp_path / "out"), "60", "1"])
    wait_for((tmp_path / "out" / run_logger.RUN_FILE).exists, process)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    error = process.communicate()[1]
    assert "SIGTERM at step" in error
    assert "the same command continues from it" in error
    assert states(tmp_path / "out")
    assert train(folder, tmp_path / "out").resumed_from_step


def test_early_stopping_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"patience": 2, "epochs": 40, "schedule": "constant"})
    trained = train(folder, tmp_path / "out", params=params)
    assert trained.optimizer_steps < 15 * 40
    assert trained.best_step == trained.optimizer_steps - 14


def test_a_tensor_that_does_not_move_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a change in every parameter tensor"):
        train(folder, tmp_path / "out", params=PARAMS.model_copy(update={"learning_rate": 0.0, "epochs": 1}))
    runs = tracker.client().search_runs(["1"])
    assert [run.info.status for run in runs] == ["FAILED"]
    assert "found" in runs[0].data.tags["apf.error"]
