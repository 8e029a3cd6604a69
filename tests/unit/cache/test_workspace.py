"""Where results and runs go: the environment by default, a workspace where one is active."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apf_tasks.cache import store
from apf_tasks.cache.workspace import Workspace, current_workspace
from apf_tasks.tracking import tracker


def recorded(workspace: Workspace, name: str, together: threading.Barrier | None = None) -> set[str]:
    """The names of the experiments there, one of which is made now."""
    with workspace.active():
        if together is not None:
            together.wait()
        tracker.experiment_id(name)
        if together is not None:
            together.wait()
        return {found.name for found in tracker.client().search_experiments()} - {"Default"}


def test_the_environment_is_read_at_each_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / "one"))
    assert store.root() == tmp_path / "one"
    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / "two"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    assert current_workspace() == Workspace(tmp_path / "two", "http://tracker")
    assert tracker.tracking_uri() == tracker.registry_uri() == "http://tracker"


def test_an_active_workspace_wins_and_leaves_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://registry")
    before, outside = dict(os.environ), current_workspace()
    with Workspace(tmp_path / "inner").active():
        assert dict(os.environ) == before
        assert store.root() == tmp_path / "inner"
        assert tracker.registry_uri() == tracker.tracking_uri() == f"sqlite:///{tmp_path / 'inner' / 'mlflow.db'}"
    assert current_workspace() == outside


def test_the_usual_workspace_is_back_after_an_error(tmp_path: Path) -> None:
    outside = current_workspace()
    with pytest.raises(RuntimeError), Workspace(tmp_path / "inner").active():
        raise RuntimeError
    assert current_workspace() == outside


def test_two_workspaces_one_after_the_other(tmp_path: Path) -> None:
    one, two = Workspace(tmp_path / "one"), Workspace(tmp_path / "two")
    assert recorded(one, "a") == {"a"}
    assert recorded(two, "b") == {"b"}
    assert recorded(one, "c") == {"a", "c"}


def test_two_workspaces_in_two_threads_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=120)
    with ThreadPoolExecutor(2) as threads:
        one, two = (threads.submit(recorded, Workspace(tmp_path / name), name, together) for name in ("one", "two"))
    assert (one.result(), two.result()) == ({"one"}, {"two"})


def test_functions_of_mlflow_itself_use_the_workspace_of_their_thread(tmp_path: Path) -> None:
    """They have one address for a process: while one thread uses them, another one's client changes nothing."""
    import mlflow

    one, two = Workspace(tmp_path / "one"), Workspace(tmp_path / "two")
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    with one.active(), tracker.fluent_api(), ThreadPoolExecutor(1) as thread:
        assert thread.submit(recorded, two, "b").result() == {"b"}
        assert mlflow.get_tracking_uri() == tracker.tracking_uri()
    with two.active(), tracker.fluent_api():
        assert [found.name for found in mlflow.search_experiments(filter_string="name = 'b'")] == ["b"]
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        assert os.environ.get(name) == before.get(name)
