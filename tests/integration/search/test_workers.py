"""Trials at the same time: processes of this machine, a Dask cluster and a Ray cluster of two workers each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from apf_tasks.artifacts import Selection, TrainedModel
from apf_tasks.cache import store
from apf_tasks.errors import ParamsError, WorkersError
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.device_slots import exclusive_device
from apf_tasks.tracking import tracker
from flows.orchestration.workers import WorkerExecutor
from tests.support.paths import PROJECT
from tests.support.projects import handles, run, write_project
from tests.support.tiny import tiny_bert

pytestmark = pytest.mark.usefixtures("prefect_server")

RATES = [0.004, 0.001, 1e36]
"""The last one diverges."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    split = {"validation_fraction": 0.3, "test_fraction": 0.2, "near_duplicate_similarity": None}
    search = {"space": {"train.learning_rate": RATES}, "parallel": 2}
    base, train = tiny_bert(tmp_path / "tiny"), {"epochs": 4, "batch_size": 8}
    write_project(tmp_path, base, split=split, train=train, search=search)
    return tmp_path


@pytest.mark.parametrize(
    "workers", ["", pytest.param("dask", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)]
)
def test_trials_run_in_two_workers(project: Path, workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_WORKERS", workers)
    before = os.environ.get("OMP_NUM_THREADS")
    done = run()
    assert os.environ.get("OMP_NUM_THREADS") == before  # results depend on the number of threads
    assert {t["label"]: bool(t["failure"]) for t in done.trials} == {
        "learning_rate=0.004": False,
        "learning_rate=0.001": False,
        "learning_rate=1e+36": True,
    }
    assert "DivergedError: training step" in next(t["failure"] for t in done.trials if t["failure"])
    assert len(handles(done, TrainedModel)) == 2
    children = tracker.client().search_runs(
        [tracker.experiment_id("reviews")], filter_string="tags.`apf.kind` = 'trial'"
    )
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {done.run_id}
    assert len(children) == 3
    processes = {child.data.tags["apf.pid"] for child in children}
    assert len(processes) >= 2
    assert str(os.getpid()) not in processes
    assert not list(store.root().glob(".workers-*"))
    monkeypatch.setenv("APF_WORKERS", "dask:nobody" if workers else "")
    again = run(search__space={"train.learning_rate": RATES[:2]})  # what is known needs no worker
    assert [v.status for v in again.stage_runs if v.stage == "train_model"] == ["reused", "reused"]
    assert handles(again, Selection)[0].fingerprint == handles(done, Selection)[0].fingerprint


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_trial(project: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 1200
        while time.monotonic() < deadline and not list(store.root().glob(".workers-*/*.json")):
            time.sleep(0.02)
        for child in psutil.Process().children(recursive=True):  # forked, so that they look like their parent
            if child.ppid() != os.getpid() and "forkserver" in " ".join(child.cmdline()) and not killed:
                child.kill()
                killed.append(child.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    done = run(search__space={"train.learning_rate": RATES[:2]}, train__epochs=40)
    killer.join()
    assert killed
    assert [trial["failure"] for trial in done.trials] == ["", ""]
    assert len(handles(done, TrainedModel)) == 2


def test_a_cluster_that_does_not_answer_is_said_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_WORKERS", "dask:nobody")
    with pytest.raises(WorkersError, match="APF_WORKERS: expected workers that respond, found ValueError"):
        run()


def test_an_unknown_kind_of_workers_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_WORKERS", "spark")
    with pytest.raises(ParamsError, match="dask, ray, dask:ADDRESS or ray:ADDRESS, found spark"):
        run()


def test_each_trial_has_a_place_of_its_own() -> None:
    code = """
import torch
from apf_tasks.runtime.device_slots import exclusive_device
from apf_tasks.params.experiment import RuntimeParams

torch.set_num_threads(4)
with exclusive_device(RuntimeParams(device="cpu"), 2) as place:
    print(place, torch.get_num_threads(), flush=True)
    input()
"""
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code]
    with (
        subprocess.Popen(command, env=environment, **pipes) as first,
        subprocess.Popen(command, env=environment, **pipes) as second,
    ):
        try:
            said = [holder.stdout.readline().split() for holder in (first, second)]
            first.kill()  # the kernel frees its place
            with exclusive_device(RuntimeParams(device="cpu"), 2) as place:
                freed = place
        finally:
            first.kill()
            second.kill()
    assert sorted(said) == [["cpu:0", "2"], ["cpu:1", "2"]]
    assert freed == said[0][0]


def test_folders_of_searches_that_were_killed_go_and_those_of_living_ones_stay(mlruns: Path) -> None:
    dead = mlruns / ".workers-dead"
    dead.mkdir(parents=True)
    (dead / "key.json").touch()
    with WorkerExecutor(2, RuntimeParams()):
        (living,) = mlruns.glob(".workers-*")
        assert living != dead
        with WorkerExecutor(2, RuntimeParams()):
            assert living.is_dir()
            assert len(list(mlruns.glob(".workers-*"))) == 2
        assert [*mlruns.glob(".workers-*")] == [living]
    assert not list(mlruns.glob(".workers-*"))
