"""A search with rungs through real Prefect, MLflow and torch: what it costs, what it finds, what it survives."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from prefect.settings import PREFECT_API_URL
from safetensors.torch import load_file

from apf_tasks.artifacts import Rung, Selection, TrainedModel
from apf_tasks.cache import store
from apf_tasks.cache.journal import PipelineRun
from apf_tasks.errors import ApfError
from apf_tasks.tracking import tracker
from apf_tasks.tracking.tracker import put_mlflow_database
from tests.support.paths import PROJECT
from tests.support.projects import handles, run, work_in_copy, working_in, write_project
from tests.support.tiny import tiny_bert

pytestmark = pytest.mark.usefixtures("prefect_server")

RATES = [0.004, 0.002, 0.0001, 0.00001]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after one search; tests work on copies."""
    folder = tmp_path_factory.mktemp("project")
    with working_in(folder):
        split = {"validation_fraction": 0.3, "test_fraction": 0.2, "near_duplicate_similarity": None}
        train = {"epochs": 4, "batch_size": 8, "evaluate_every_epochs": 1}
        search = {"space": {"train.learning_rate": RATES}, "halving": {"eta": 2, "min_steps": 8}}
        write_project(folder, base, split=split, train=train, search=search)
        (folder / "first.json").write_text(json.dumps(run().trials))
    return folder


@pytest.fixture
def project(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return work_in_copy(first, tmp_path, monkeypatch)


def ran(done: PipelineRun) -> list[str]:
    return [f"{v.stage} {v.label}".strip() for v in done.stage_runs if v.status == "ran"]


def test_the_best_go_on_and_nothing_is_computed_twice(project: Path) -> None:
    done = run()
    assert ran(done) == []
    rungs = handles(done, Rung)
    steps = rungs[0].steps
    assert [rung.step for rung in rungs] == [round(steps / 4)] * 4 + [round(steps / 2)] * 2
    scores = [rung.score for rung in rungs]
    best = sorted(range(4), key=lambda i: -scores[i])[:2]
    assert [rung.train.learning_rate for rung in rungs[4:]] == [RATES[i] for i in best]
    assert len(handles(done, TrainedModel)) == 1
    selection = handles(done, Selection)[0]
    assert selection.compared == 4
    assert selection.tie_break == "best of 4, 1 of them trained to the end"
    assert set(selection.candidates[0].trial) == {"train.learning_rate"}
    trained = sum(trial["step"] for trial in done.trials)
    assert trained == steps + round(steps / 2) + 2 * round(steps / 4)


def test_the_winner_is_bit_for_bit_the_training_that_never_stopped(project: Path, tmp_path: Path) -> None:
    winner = handles(run(), TrainedModel)[0]
    assert winner.resumed_from_step
    os.environ["APF_MLRUNS"] = str(tmp_path / "plain")
    whole = handles(run(train__learning_rate=winner.train.learning_rate, search__halving=None), TrainedModel)[0]
    assert whole.resumed_from_step is None
    assert whole.fingerprint == winner.fingerprint
    first, second = (load_file(m.path / "model" / "model.safetensors") for m in (winner, whole))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert whole.best_step == winner.best_step


def test_a_trial_that_goes_on_after_a_rung_was_not_interrupted(project: Path, tmp_path: Path) -> None:
    os.environ["APF_MLRUNS"] = str(tmp_path / "again")
    done = run()
    [trained] = [visit for visit in done.stage_runs if visit.stage == "train_model"]
    rung = [rung for rung in handles(done, Rung) if rung.train == trained.handle.train][-1]  # type: ignore[union-attr]
    assert trained.reason == f"goes on from step {rung.step}"
    assert not list(trained.handle.path.glob("**/paused"))  # type: ignore[union-attr]
    first = [visit.reason for visit in done.stage_runs if visit.stage == "train_rung"]
    assert first[0] == "first time"


def test_the_record_has_one_run_per_trial(project: Path) -> None:
    winner = handles(run(), TrainedModel)[0]
    children = tracker.client().search_runs(
        [tracker.experiment_id("reviews")], filter_string="tags.`apf.kind` = 'trial'"
    )
    assert len(children) == 4
    assert {child.data.params["train.learning_rate"] for child in children} == {str(rate) for rate in RATES}
    assert {child.info.status for child in children} == {"FINISHED"}
    losses = tracker.client().get_metric_history(winner.run_id, "train/loss")
    assert [point.step for point in losses] == list(range(1, winner.optimizer_steps + 1))
    validated = [p.step for p in tracker.client().get_metric_history(winner.run_id, "validation/accuracy")]
    assert validated == sorted(set(validated))
    parent = tracker.client().get_run(tracker.client().get_run(winner.run_id).data.tags["mlflow.parentRunId"])
    assert parent.data.metrics["search/trials"] == 4
    folder = Path(tracker.client().download_artifacts(parent.info.run_id, "search"))
    rows = pd.read_csv(folder / "trials.csv")
    assert rows["outcome"].tolist() == ["chosen"] + ["stopped there"] * 3
    assert (folder / "search.png").read_bytes().startswith(b"\x89PNG")


def test_another_value_trains_that_one_alone(project: Path) -> None:
    known = {trial["label"] for trial in json.loads((project / "first.json").read_text())}
    done = run(search__space={"train.learning_rate": [*RATES, 0.00002]})
    trained = {visit.label for visit in done.stage_runs if visit.stage == "train_rung" and visit.status == "ran"}
    assert "learning_rate=2e-05" in trained
    first_rung = [v for v in done.stage_runs if v.stage == "train_rung"][:5]
    assert [v.status for v in first_rung] == ["reused"] * 4 + ["ran"]
    assert len(known) == 4


def test_a_trial_that_fails_does_not_end_the_search(project: Path) -> None:
    models = [
        {"base": str(project / "missing")},
        {"base": yaml.safe_load(Path("reviews.yaml").read_text())["model"]["base"]},
    ]
    done = run(search__space={"model": models, "train.learning_rate": [1e36, 0.004]})
    failures = {trial["label"].split()[-1]: trial["failure"] for trial in done.trials if trial["failure"]}
    assert sum("missing" in trial["label"] for trial in done.trials) == 2, done.trials
    assert len([trial for trial in done.trials if trial["failure"]]) == 3, done.trials
    assert [reason for reason in failures.values() if "training step" in reason and "nan" in reason], failures
    assert handles(done, Selection)[0].compared == 1
    again = run(search__space={"model": models, "train.learning_rate": [1e36, 0.004]})
    assert ran(again) == []  # the diverged trial's failure is known; the missing model is looked for again


@pytest.mark.slow
def test_failed_trials_give_their_memory_back(project: Path) -> None:
    tiny_bert(project / "larger", hidden=256, layers=6)
    weights = sum(file.stat().st_size for file in (project / "larger").glob("*.safetensors")) / 2**20
    after: list[float] = []

    def look(record: logging.LogRecord) -> bool:
        if record.levelno == logging.WARNING and " failed: " in record.getMessage():
            after.append(psutil.Process().memory_info().rss / 2**20)
        return True

    models = [{"base": str(project / "larger"), "max_tokens": n} for n in (48, 49)]
    logging.getLogger("apf").addFilter(look)
    try:
        with pytest.raises(ApfError, match="8 failed"):
            run(search__space={"model": models, "train.learning_rate": [10.0**n for n in range(31, 35)]})
    finally:
        logging.getLogger("apf").removeFilter(look)
    assert len(after) == 8
    assert max(after[4:]) - max(after[:4]) < 4 * weights  # what one trial holds: weights, gradients, two moments


def test_out_of_memory_is_the_failure_of_one_trial(project: Path) -> None:
    small = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 64}
    huge = small | {"hidden_size": 2**34}
    scratch = {"model__init": "scratch", "model__base": "", "model__architecture": "bert"}
    done = run(**scratch, tokenizer__train="wordpiece", search__space={"model.sizes": [small, huge]})
    failure = next(trial["failure"] for trial in done.trials if trial["failure"])
    assert "memory" in failure
    assert len(handles(done, TrainedModel)) == 1


def test_a_search_in_which_all_fail_says_why(project: Path) -> None:
    with pytest.raises(ApfError, match="expected a trial that can be trained, found 2 failed") as caught:
        run(search__space={"train.learning_rate": [1e36, 1e37]})
    assert "learning_rate=1e+36: training step" in str(caught.value)


def test_the_budget_ends_the_drawing_and_seeds_repeat_the_best(project: Path) -> None:
    steps = json.loads((project / "first.json").read_text())[0]["steps"]
    done = run(search__budget={"steps": 2 * steps}, search__halving=None, search__seeds=3)
    assert [trial["label"] for trial in done.trials] == ["learning_rate=0.004", "learning_rate=0.002"] or len(
        done.trials
    ) == 2
    models = handles(done, TrainedModel)
    assert [model.train.seed for model in models] == [0, 0, 1, 2, 1, 2]
    best = handles(done, Selection)[0].candidates[0]
    assert best.score == pytest.approx(sum(best.seeds) / 3)
    assert len(best.seeds) == 3


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_in_the_same_selection(project: Path, tmp_path: Path) -> None:
    expected = handles(run(), Selection)[0]
    put_mlflow_database(tmp_path / "killed" / "mlflow.db")
    environment = os.environ | {"APF_MLRUNS": str(tmp_path / "killed"), "PYTHONPATH": str(PROJECT)}
    environment["PREFECT_API_URL"] = PREFECT_API_URL.value()
    os.environ["APF_MLRUNS"] = environment["APF_MLRUNS"]
    command = [sys.executable, "-m", "flows.cli.main", "run", "reviews.yaml"]
    for rungs in (1, 5):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 1200
        while len(list(store.stage_folder("train_rung").glob(f"*/{store.HANDLE}"))) < rungs:
            assert process.poll() is None, f"the search ended with {process.returncode} before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.wait()
    found = handles(run(), Selection)[0]
    assert found.fingerprint == expected.fingerprint
    assert found.chosen.fingerprint == expected.chosen.fingerprint
