"""A tracker that dies, stands still and comes back: nothing waits for it, and it gets every point once."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apf_tasks.errors import RegistryError
from apf_tasks.tracking import outbox, run_logger, tracker
from tests.support.projects import apf
from tests.support.tracking_server import Server


def test_a_tracker_that_comes_and_goes_gets_every_point_once(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def points() -> list[tuple[int, float]]:
        return [(p.step, p.value) for p in tracker.client().get_metric_history(run.run_id, "train/loss")]

    caplog.set_level(logging.INFO, logger="apf")
    started = time.monotonic()
    with run_logger.trial_run(tmp_path, "trial", {"train.epochs": 1}, None) as run:
        run.log(1, {"train/loss": 3.0})
        run.flush()
        while not points():
            time.sleep(0.1)
        server.send(signal.SIGSTOP)  # it takes a request, and does not answer
        for step in range(2, 50):
            run.log(step, {"train/loss": 3.0 / step})
        run.flush()
        time.sleep(0.5)
        server.send(signal.SIGKILL)
        at = outbox.now_ms()
        run.log(50, {"train/loss": 0.06})
    ended = outbox.now_ms()
    assert time.monotonic() - started < 300  # it waits for 20 s; a tracker's own retries take longer than this
    said = [record.message for record in caplog.records]
    assert sum("the tracker is unavailable" in line for line in said) == 1
    assert "is pending in the outbox; `apf reconcile` delivers it" in said[-1]
    assert outbox.deliver_leftovers() == {run.run_id: False}

    server.start()
    assert outbox.deliver_leftovers() == {run.run_id: True}
    assert outbox.deliver_leftovers() == {}
    assert points() == [(1, 3.0), *((step, 3.0 / step) for step in range(2, 50)), (50, 0.06)]
    assert at <= tracker.client().get_metric_history(run.run_id, "train/loss")[-1].timestamp <= ended
    info = tracker.client().get_run(run.run_id).info
    assert info.status == "FINISHED"
    assert at <= info.end_time <= ended  # when it ended, not when that was delivered


def test_what_was_sent_and_not_marked_is_not_sent_again(mlruns: Path, tmp_path: Path) -> None:
    with run_logger.trial_run(tmp_path, "trial", {}, None) as run:
        run.log(1, {"train/loss": 3.0})
    lines = [outbox.MetricPoint("train/loss", 3.0 / step, step, step) for step in (1, 2)]
    left = outbox.Outbox(run.run_id)
    left.add(lines)
    assert outbox.deliver_leftovers() == {}  # somebody works on it
    left.flush()
    left.close(outbox.RunEnd("KILLED", 7, {}))
    found = tracker.client().get_metric_history(run.run_id, "train/loss")
    assert sorted((p.step, p.value) for p in found) == [(1, 3.0), (2, 1.5)]
    assert not list(outbox.folder().iterdir())
    (outbox.folder() / f"{run.run_id}.jsonl").write_text('{"point": ["train/loss", 1.0, 3, 3]}\n{"poi')
    assert outbox.deliver_leftovers() == {run.run_id: True}
    assert len(tracker.client().get_metric_history(run.run_id, "train/loss")) == 3


def test_reconcile_puts_right_what_killed_processes_left(
    mlruns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "import os, pathlib, signal; from apf_tasks.tracking import run_logger\n"
        f"with run_logger.trial_run(pathlib.Path({str(tmp_path)!r}), 'trial', {{}}, None) as run:\n"
        "    run.log(1, {'train/loss': 3.0}); run.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    with run_logger.trial_run(tmp_path / "..", "at work", {}, None) as at_work:
        capsys.readouterr()
        assert apf("reconcile", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        [dead] = found["closed"]
        assert found == {"closed": [dead], "delivered": [dead], "waiting": [], "champions": []}
        assert tracker.client().get_run(dead).info.status == "KILLED"
        assert tracker.client().get_run(dead).data.metrics == {"train/loss": 3.0}
        assert tracker.client().get_run(at_work.run_id).info.status == "RUNNING"
    (outbox.folder() / f"{'0' * 32}.jsonl").write_text('{"point": ["train/loss", 1.0, 3, 3]}\n')
    assert apf("reconcile") == 0
    assert f"{'0' * 32}.jsonl is pending" in "".join(capsys.readouterr().out.split("\n"))


def test_a_tracker_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(RegistryError, match="Start the server, or unset MLFLOW_TRACKING_URI"):
        tracker.client()
    assert time.monotonic() - started < 120  # a client's own retries take longer
