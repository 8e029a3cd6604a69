"""A search from a champion that a server holds: its files are fetched once, and nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from apf_tasks.tracking import tracker
from apf_tasks.tracking.tracker import put_mlflow_database
from tests.support.paths import PROJECT
from tests.support.tiny import tiny_bert
from tests.support.tracking_server import Server

TRIALS = """
from apf_tasks.params.model import ModelParams
from apf_tasks.sources.models import model_folder
for trial in range(3):
    print(model_folder(ModelParams(base="models:/reviews/1")))
"""


class Fetched(NamedTuple):
    """What became of a model that three trials started from."""

    folders: set[str]
    left: list[str]
    """In the temporary folder and among the downloads, when the process had ended."""


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    folder = tmp_path_factory.mktemp("warm")
    put_mlflow_database(folder / "server.db")
    server = Server(folder)
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APF_MLRUNS", str(folder / "mlruns"))
        patch.setenv("MLFLOW_TRACKING_URI", server.uri)
        register(folder)
        environment = os.environ | {"TMPDIR": str(folder / "tmp")}
        ended = subprocess.run(
            [sys.executable, "-c", TRIALS], env=environment, cwd=PROJECT, check=True, capture_output=True, text=True
        )
    server.send(signal.SIGKILL)
    left = [path.name for kept in (folder / "tmp", folder / "mlruns" / "downloads") for path in kept.iterdir()]
    return Fetched(set(ended.stdout.split()), left)


def register(folder: Path) -> None:
    """A model, as far as its files go, as version 1."""
    tiny_bert(folder / "logged" / "artifacts" / "model")
    client = tracker.client()
    run = client.create_run(client.create_experiment("reviews")).info
    client.log_artifacts(run.run_id, str(folder / "logged"), "model")
    client.create_registered_model("reviews")
    client.create_model_version("reviews", f"{run.artifact_uri}/model", run.run_id)


@pytest.mark.slow
def test_trials_share_one_copy_of_the_model_they_start_from(fetched: Fetched) -> None:
    assert len(fetched.folders) == 1


@pytest.mark.slow
def test_no_copy_is_left_when_the_process_ends(fetched: Fetched) -> None:
    assert fetched.left == []
