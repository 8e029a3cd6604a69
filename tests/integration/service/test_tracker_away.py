"""A tracker that refuses, or loses an answer, while a trial starts: it is waited for, and chooses nothing."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
import yaml

from apf_tasks.artifacts import Selection
from apf_tasks.cache import store
from apf_tasks.errors import RegistryError
from apf_tasks.tracking import run_logger, tracker
from tests.support.projects import handle, run
from tests.support.tiny import review_rows, tiny_bert, write_jsonl
from tests.support.tracking_server import Proxy


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(tracker, "PAUSE_SECONDS", 0.1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")


def runs() -> list[str]:
    """All runs of the experiment in which trials without a pipeline are recorded, by their state."""
    return [run.info.status for run in tracker.client().search_runs([tracker.experiment_id("apf")])]


def test_a_lost_answer_leaves_one_run(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 600.0)
    proxy.loses = "runs/create"

    def recover(record: logging.LogRecord) -> bool:
        if "waits for the tracker" in record.getMessage():
            proxy.loses = ""
        return True

    logging.getLogger("apf").addFilter(recover)
    try:
        with run_logger.trial_run(tmp_path, "trial", {"train.epochs": 1}, None) as trial:
            assert tracker.client().get_run(trial.run_id).data.params == {"train.epochs": "1"}
    finally:
        logging.getLogger("apf").removeFilter(recover)
    assert proxy.lost == 1
    assert runs() == ["FINISHED"]


def test_the_next_start_finds_the_run_whose_creation_was_never_heard_of(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 0.0)
    proxy.loses = "runs/create"
    with pytest.raises(RegistryError, match="to record there"), run_logger.trial_run(tmp_path, "trial", {}, None):
        raise AssertionError
    proxy.loses = ""
    assert runs() == ["RUNNING"]
    with run_logger.trial_run(tmp_path, "trial", {}, None):
        assert runs() == ["RUNNING"]
    assert runs() == ["FINISHED"]


def test_a_tracker_that_is_away_for_a_moment_is_waited_for(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 60.0)
    caplog.set_level(logging.INFO, logger="apf")
    tracker.client()
    proxy.refuses = True
    timer = threading.Timer(1.0, setattr, (proxy, "refuses", False))
    timer.start()
    with run_logger.trial_run(tmp_path, "trial", {}, None):
        assert runs() == ["RUNNING"]
    timer.join()
    said = [record.message for record in caplog.records]
    assert sum("waits for the tracker, 60 s at most" in line for line in said) == 1
    assert sum("the tracker answers again" in line for line in said) == 1


@pytest.mark.usefixtures("prefect_server")
def test_a_search_does_not_choose_among_what_the_tracker_let_start(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", review_rows(200))
    params = {
        "family": "sentiment",
        "data": {"source": "rows.jsonl"},
        "split": {"validation_fraction": 0.3, "test_fraction": 0.2, "near_duplicate_similarity": None},
        "model": {"base": str(tiny_bert(tmp_path / "tiny")), "max_tokens": 48},
        "train": {"epochs": 2, "batch_size": 8},
        "runtime": {"precision": "fp32"},
        "search": {"space": {"train.learning_rate": [0.004, 0.001]}},
        "test": {"resamples": 200, "before_fine_tuning": False},
    }
    (tmp_path / "reviews.yaml").write_text(yaml.safe_dump(params))

    caplog.set_level(logging.INFO, logger="apf")
    starts: list[str] = []

    def refuse_the_second(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("train_model") and " runs: " in record.getMessage():
            starts.append(record.getMessage())
            proxy.refuses = len(starts) == 2
        return True

    logging.getLogger("apf").addFilter(refuse_the_second)
    try:
        with pytest.raises(RegistryError, match="the same command continues when the tracker is available"):
            run()
    finally:
        logging.getLogger("apf").removeFilter(refuse_the_second)
    assert len(starts) == 2
    assert not list(store.stage_folder("select").glob("*"))
    proxy.refuses = False
    done = run()
    assert [trial["failure"] for trial in done.trials] == ["", ""]
    assert handle(done, Selection).compared == 2
