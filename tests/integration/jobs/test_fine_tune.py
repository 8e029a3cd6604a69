"""The main job on a tiny model, through real Prefect, MLflow and torch: from raw rows to a registered model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from apf_tasks.artifacts import EvaluationReport, RawData, Selection, TrainedModel
from apf_tasks.cache import code_digest, store
from apf_tasks.cache.journal import PipelineRun, journal
from apf_tasks.params.file import load_params
from apf_tasks.pipelines import pipeline
from apf_tasks.planning.plan import plan_stages
from apf_tasks.tracking import tracker
from flows.cli.main import main
from tests.support.projects import handle, run, work_in_copy, working_in, write_project
from tests.support.tiny import review_rows, tiny_bert, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")

ALL_REUSED = {"ingest", "split_rows", "tokenize", "train_model", "select", "evaluate", "register"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after one run; each test works on a copy."""
    folder = tmp_path_factory.mktemp("project")
    with working_in(folder):
        space = {"space": {"train.learning_rate": [0.004, 0.0001]}}
        train, test = {"epochs": 4, "batch_size": 16}, {"resamples": 200}
        write_project(folder, base, 240, train=train, runtime={}, search=space, test=test)
        run()
    return folder


def ran(done: PipelineRun) -> set[str]:
    return {f"{v.stage} {v.label}".strip() for v in done.stage_runs if v.status in ("ran", "runs")}


@pytest.fixture
def project(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder after the first run, to work in."""
    return work_in_copy(first, tmp_path, monkeypatch)


def test_the_record_of_a_run(project: Path) -> None:
    done = run()
    assert ran(done) == set()
    client = tracker.client()
    experiment = client.get_experiment_by_name("reviews")
    runs = {r.info.run_id: r for r in client.search_runs([experiment.experiment_id])}
    trials = [r for r in runs.values() if r.data.tags.get("apf.kind") == "trial"]
    pipelines = [r for r in runs.values() if r.data.tags.get("apf.kind") == "pipeline"]
    assert len(trials) == 2, "a reused training is no new run"
    assert len(pipelines) == 2
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    assert {r.data.params["train.learning_rate"] for r in trials} == {"0.004", "0.0001"}
    assert {r.data.tags["mlflow.parentRunId"] for r in trials} <= runs.keys(), "trials are children of recorded runs"
    latest = runs[done.run_id]
    report = handle(done, EvaluationReport)
    assert latest.data.metrics["test/accuracy"] == report.scores["accuracy"]
    assert latest.data.metrics["test/accuracy_low"] <= report.scores["accuracy"]
    assert latest.data.tags["apf.stage.train_model.learning_rate_0.004"] == "reused"
    assert set(latest.data.tags["apf.reused_trial_runs"].split(", ")) == {r.info.run_id for r in trials}
    assert {d.dataset.name for d in latest.inputs.dataset_inputs} == {"train", "validation", "test"}
    artifacts = {
        f.path for folder in ("split", "selection", "test") for f in client.list_artifacts(done.run_id, folder)
    }
    assert {"split/leaks.json", "selection/candidates.json", "test/report.json", "test/confusion.png"} <= artifacts


def test_the_chosen_model_is_best_on_validation_and_beats_the_majority(project: Path) -> None:
    done = run()
    selection, report = handle(done, Selection), handle(done, EvaluationReport)
    trained = [v.handle for v in done.stage_runs if isinstance(v.handle, TrainedModel)]
    assert selection.chosen.scores["accuracy"] == max(t.scores["accuracy"] for t in trained)
    assert selection.chosen.train.learning_rate == 0.004
    assert report.model_fingerprint == selection.chosen.fingerprint
    assert report.scores["accuracy"] > report.baselines["majority"]["accuracy"]
    predictions = pd.read_parquet(report.path / "predictions.parquet")
    accuracy = (predictions["reference"] == predictions["prediction"]).mean()
    assert accuracy == pytest.approx(report.scores["accuracy"])
    assert {"row_id", "text", "probability", "baseline_majority"} <= set(predictions.columns)


def test_another_learning_rate_trains_only_what_depends_on_it(project: Path) -> None:
    done = run(search__space={"train.learning_rate": [0.004, 0.00001]})
    # the same model is chosen again, so neither its test nor its registration is repeated
    assert ran(done) == {"train_model learning_rate=1e-05", "select"}
    reason = next(v.reason for v in done.stage_runs if v.label == "learning_rate=1e-05")
    assert reason == "train.learning_rate 0.0001 → 1e-05"
    done = run(search={}, train__learning_rate=0.003)
    assert ran(done) == {"train_model", "select", "evaluate", "register"}


def test_changed_test_rows_do_not_retrain(project: Path) -> None:
    raw = handle(run(), RawData)
    test = pd.concat(pd.read_parquet(p) for p in (project / "mlruns/stages/split_rows").glob("*/test.parquet"))
    known = test["row_id"].iloc[0]
    rows = review_rows(240)
    rows.pop(int(known.rsplit(":", 1)[1]) - 1)
    rows.append({"text": "", "label": "positive"})  # keeps the numbers of the rows behind it, and is rejected
    assert raw.rows == {"all": 240}
    lines = [json.dumps(r) for r in rows[:-1]]
    lines.insert(int(known.rsplit(":", 1)[1]) - 1, json.dumps(rows[-1]))
    (project / "rows.jsonl").write_text("\n".join(lines) + "\n")
    done = run()
    assert not {name for name in ran(done) if name.startswith("train_model")}
    assert {"ingest", "split_rows", "tokenize test", "evaluate"} <= ran(done)
    assert handle(done, RawData).rejected_rows == 1


def test_a_plan_says_what_a_run_then_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = load_params("reviews.yaml", ["model.max_tokens=16"])
    with journal(dry=True) as book:
        pipeline(params)
    assert ran(book) == ran(run(model__max_tokens=16))
    assert main_ok(["plan", "reviews.yaml", "model.max_tokens=16", "--json"])
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert {s["status"] for s in stages} == {"reused"}
    assert main_ok(["plan", "reviews.yaml", "model.max_tokens=16", "--memory"])
    assert "Nothing would be trained" in capsys.readouterr().out


def main_ok(arguments: list[str]) -> bool:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code in (0, None)


def test_a_comment_in_the_code_reuses_and_an_expression_does_not(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "apf_tasks"
    shutil.copytree(code_digest.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "PACKAGE", copy)
    params = load_params("reviews.yaml")
    schedules = copy / "training" / "optim" / "schedules.py"
    schedules.write_text(schedules.read_text() + "\n# nothing but a remark\n")
    assert {v.status for v in plan_stages(params, pipeline)} == {"reused"}
    schedules.write_text(schedules.read_text().replace("return 1 - progress", "return (1 - progress) ** 2"))
    other = plan_stages(params, pipeline)
    assert {v.stage for v in other if v.status == "runs"} == {
        "train_model",
        "select",
        "evaluate",
        "register",
    }
    assert "code of apf_tasks.training.optim.schedules changed" in [v.reason for v in other]


def test_a_deleted_registry_entry_is_registered_again(project: Path) -> None:
    tracker.client().delete_registered_model("reviews")
    done = run()
    assert ran(done) == {"register"}
    versions = tracker.client().get_registered_model("reviews")
    assert set(versions.aliases) == {"challenger", "champion"}


def test_the_model_loads_with_auto_classes_and_predicts_a_file(project: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from apf_tasks.tracking.registry import download_model

    folder = download_model("models:/reviews@champion")
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.id2label == {0: "negative", 1: "positive"}
    assert AutoTokenizer.from_pretrained(folder)("a warm film")["input_ids"]
    assert "| tfidf_logistic_regression |" in (folder / "README.md").read_text()
    assert not list(folder.rglob("*.bin"))
    rows = [{"text": "a warm film", "note": "1"}, {"text": "", "note": "empty"}, {"text": "a dull plot", "note": "3"}]
    source, target = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.csv"
    assert main_ok(["predict", "models:/reviews@champion", str(source), "-o", str(target)])
    found = pd.read_csv(target)
    assert found["note"].tolist() == ["1", "empty", "3"]
    assert set(found["prediction"]) <= {"negative", "positive"}
    assert found["probability"].between(0.5, 1).all()


def test_the_same_model_as_base_of_another_experiment(project: Path) -> None:
    stage_runs = plan_stages(load_params("reviews.yaml", ["model.base=models:/reviews@champion"]), pipeline)
    assert stage_runs[0].status == "reused"
    assert "model.base" in stage_runs[2].reason
    done = run(model__base="models:/reviews@champion", search={}, train__epochs=1)
    assert handle(done, TrainedModel).base == "models:/reviews/1"


def test_a_broken_run_is_recorded_and_keeps_what_was_done(project: Path) -> None:
    from apf_tasks.errors import DivergedError

    with pytest.raises(DivergedError):
        run(search={}, train__learning_rate=1e15, train__max_grad_norm=None)
    experiment = tracker.client().get_experiment_by_name("reviews")
    failed = tracker.client().search_runs([experiment.experiment_id], "attributes.status = 'FAILED'")
    assert {r.data.tags["apf.kind"] for r in failed} == {"pipeline", "trial"}
    said = [r.data.tags["apf.error"] for r in failed]
    assert not [error for error in said if "Diverged" not in error], "each failed run says that it diverged"
    assert ran(run()) == set()


def test_one_json_document(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_ok(["run", "reviews.yaml", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert {name: document["stages"][name] for name in ALL_REUSED} == dict.fromkeys(ALL_REUSED, "reused")
    assert document["model_uri"] == "models:/reviews/1"
    assert document["selection"]["compared"] == 2
    assert set(document["test"]) >= {"scores", "intervals", "baselines"}
    assert document["run_id"] is None  # everything was reused: it is recorded later
    assert tracker.run_exists(document["registered_by"])


def test_handles_are_small(project: Path) -> None:
    handles = [p.read_text() for p in (project / "mlruns" / "stages").rglob("handle.json")]
    assert len(handles) == 10
    assert max(len(re.sub(r'"/[^"]*/', '"', text)) for text in handles) < 2048  # wherever the folder is
    assert store.root() == project / "mlruns"
