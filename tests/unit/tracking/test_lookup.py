"""The short question to the registry gets the answer that MLflow's client gives, on a database and by REST."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.tracking import registry as registry_module
from apf_tasks.tracking import tracker
from apf_tasks.tracking.lookup import run_page, version_is_there
from tests.support.tracking_server import Server


@pytest.fixture(params=["database", "server"])
def registry(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our own database, or a server of MLflow's."""
    if request.param == "database":
        yield
        return
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    try:
        yield
    finally:
        server.send(9)  # type: ignore[arg-type]


def client_says(name: str, version: int) -> bool:
    try:
        tracker.client().get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def check(name: str, version: int, expected: bool) -> None:
    assert client_says(name, version) is expected
    assert version_is_there(name, version) is expected


def a_version(folder: Path, name: str) -> int:
    files = folder / name / "files of it"
    (files / "artifacts" / "model").mkdir(parents=True, exist_ok=True)
    (files / "MLmodel").write_text("")
    (files / "artifacts" / "model" / "weights").write_text("")
    client = tracker.client()
    run = client.create_run(tracker.experiment_id(name))
    client.log_artifacts(run.info.run_id, str(files), "model")
    return int(client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id).version)


@pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")
@pytest.mark.usefixtures("registry")
def test_the_answers_are_those_of_the_client(tmp_path: Path) -> None:
    client, name = tracker.client(), "名 it's 100%"
    check(name, 1, False)
    client.create_registered_model(name)
    check(name, 1, False)
    one, two, three = (a_version(tmp_path, name) for _ in range(3))
    check(name, one, True)
    check(name, three + 1, False)
    client.set_registered_model_alias(name, "champion", str(one))
    check(name, one, True)
    client.transition_model_version_stage(name, str(two), "Archived")
    check(name, two, True)
    client.delete_model_version(name, str(one))
    check(name, one, False)
    client.rename_registered_model(name, "renamed")
    check(name, two, False)
    check("renamed", two, True)

    for model in list(tmp_path.rglob("MLmodel")):
        shutil.rmtree(model.parent)
    assert client_says("renamed", three) is True
    assert version_is_there("renamed", three) is False
    client.delete_registered_model("renamed")
    check("renamed", two, False)


@pytest.mark.usefixtures("registry")
def test_the_page_of_a_run_is_under_its_experiment() -> None:
    place = tracker.experiment_id("reviews")
    run_id, uri = tracker.client().create_run(place).info.run_id, tracker.tracking_uri()
    server = f"{uri}/" if uri.startswith("http") else ""
    assert run_page(run_id) == f"{server}#/experiments/{place}/runs/{run_id}"
    assert run_page("0" * 32) == "", "no such run"


def test_a_registry_that_cannot_be_asked_shortly_is_asked_by_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "reviews"
    tracker.client().create_registered_model(name)
    version = a_version(tmp_path, name)
    monkeypatch.setattr(registry_module, "version_is_there", lambda name, version: None)
    there, gone = (RegisteredModel.model_construct(name=name, version=v) for v in (version, version + 1))
    assert registry_module.still_registered(there)
    assert not registry_module.still_registered(gone), "no such version"
    tracker.client().delete_model_version(name, str(version))
    assert not registry_module.still_registered(there), "it was deleted"


def test_what_cannot_be_asked_is_left_to_the_client(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert version_is_there("reviews", 1) is None  # no database
    assert not (mlruns / "mlflow.db").exists()
    mlruns.mkdir(exist_ok=True)
    (mlruns / "mlflow.db").write_text("something else that is no database" * 100)
    assert version_is_there("reviews", 1) is None
    for uri in ("http://127.0.0.1:9", "postgresql://nowhere/it", "databricks"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert version_is_there("reviews", 1) is None
        assert run_page("0" * 32) == ""
