"""Pre-training from nothing, then fine-tuning what came of it, through real Prefect and MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from apf_tasks.artifacts import RegisteredModel, TrainedModel
from apf_tasks.cache.journal import PipelineRun, journal
from apf_tasks.data.ingestion import ingest
from apf_tasks.data.rows import read_rows
from apf_tasks.data.splitting import split_rows
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params
from apf_tasks.tracking import registry
from tests.support.paths import PROJECT

PRETRAINED = {"model.init": "pretrained", "model.architecture": None, "model.sizes": {}, "tokenizer.train": None}


def run(params: str, **overrides: object) -> PipelineRun:
    from flows.fine_tune import fine_tune

    with journal() as done:
        fine_tune(params, {name.replace("__", "."): value for name, value in overrides.items()})
    return done


@pytest.mark.usefixtures("prefect_server")
def test_a_model_made_from_nothing_is_the_base_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    first = run("params/smoke/masked_lm.yaml", train__epochs=1, test__resamples=100)
    made = next(v.handle for v in first.stage_runs if isinstance(v.handle, RegisteredModel))
    assert made.model_uri == "models:/masked_lm/1"
    base = {"model.base": "models:/masked_lm@champion", "train.epochs": 1, "test.resamples": 100}
    second = run("params/smoke/sentiment.yaml", **PRETRAINED, **base)
    trained = next(v.handle for v in second.stage_runs if isinstance(v.handle, TrainedModel))
    assert trained.base == "models:/masked_lm/1"  # what the alias meant
    assert registry.download_model("models:/sentiment@champion").is_dir()


def rows_of(params: Params, folder: Path) -> dict[str, set[str]]:
    """Split -> its texts."""
    for name in ("raw", "split"):
        (folder / name).mkdir(parents=True)
    raw = ingest(folder / "raw", params.data, params.family)
    split = split_rows(folder / "split", raw, params.split, params.family)
    return {name: set(read_rows(split.path / f"{name}.parquet")["text"]) for name in split.rows}


def test_what_is_tested_after_fine_tuning_was_not_read_in_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    shipped = {
        name: load_params(f"params/{name}.yaml") for name in ("pretrain-bert-zh", "sentiment-zh-from-scratch-bert")
    }
    reading, judging = shipped.values()
    assert (reading.data.source, reading.data.sha256) == (judging.data.source, judging.data.sha256)
    same = {"validation_fraction": 0.1}  # it says how the rest is divided between train and validation
    assert reading.split.model_copy(update=same) == judging.split.model_copy(update=same)
    assert reading.split.method == "hash"  # by the text alone: what is tested in one is tested in the other
    assert reading.data.max_rows is None
    measure = load_params("params/sentiment-zh-scratch.yaml")  # the same rows, split and model without pre-training
    assert (measure.data, measure.split, measure.train) == (judging.data, judging.split, judging.train)
    assert (measure.model.architecture, measure.model.sizes) == (reading.model.architecture, reading.model.sizes)
    assert measure.tokenizer.base == judging.model.base
    # the same two sections on rows that are here
    rows = load_params("params/smoke/sentiment.yaml")
    fewer = rows.split.model_copy(update={"validation_fraction": reading.split.validation_fraction})
    read = rows_of(rows.model_copy(update={"family": reading.family, "split": fewer}), tmp_path / "read")
    judged = rows_of(
        rows.model_copy(update={"data": rows.data.model_copy(update={"max_rows": 150})}), tmp_path / "judged"
    )
    assert judged["test"]
    assert not read["train"] & judged["test"]
