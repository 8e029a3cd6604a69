"""A run whose every stage is stored: neither Prefect nor MLflow is imported, and its MLflow run comes later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apf_tasks.errors import DataError
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params, origin
from apf_tasks.pipelines import pipeline
from apf_tasks.runs import reused
from apf_tasks.runs.recorded import recorded
from apf_tasks.tracking import outbox, tracker
from flows.retrain import retrain
from tests.support.projects import apf, work_in_copy, working_in, write_project
from tests.support.tiny import tiny_bert

HEAVY = ("mlflow", "prefect", "torch", "transformers", "pandas")
COMMAND = f"""
import sys
from flows.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
OWN = {"apf.host", "apf.pid", "apf.started", tracker.TOKEN_TAG}
"""Tags that no two runs share."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after one run."""
    folder = tmp_path_factory.mktemp("project")
    with working_in(folder):
        space = {"space": {"train.learning_rate": [0.004, 0.0001]}}
        write_project(folder, tiny_bert(folder / "tiny"), train={"epochs": 1, "batch_size": 16}, search=space)
        run_in_full()
    return folder


@pytest.fixture
def project(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to work in. The files of its model stay where they were logged."""
    return work_in_copy(first, tmp_path, monkeypatch)


def run_in_full() -> None:
    """The job of `reviews.yaml`, recorded as it goes."""
    recorded(load_params("reviews.yaml"), pipeline, params_file=origin("reviews.yaml"))


def run_in_new_process() -> tuple[dict[str, Any], list[str]]:
    """`apf run reviews.yaml --json` in a new process: its document, and its last lines on stderr."""
    command = [sys.executable, "-c", COMMAND, "run", "reviews.yaml", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout), ended.stderr.splitlines()


def recorded_as(run_id: str) -> dict[str, Any]:
    """What MLflow has of a run, without what differs between any two."""
    run = tracker.client().get_run(run_id)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": {name: value for name, value in run.data.tags.items() if name not in OWN},
        "inputs": sorted((i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs),
        "files": {
            str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
        },
    }


def test_reused_runs_import_nothing_heavy_and_are_recorded_like_any_other(project: Path) -> None:
    run_in_full()
    place = tracker.experiment_id("reviews")
    in_full = tracker.client().search_runs([place], "tags.`apf.kind` = 'pipeline'", max_results=1)[0].info.run_id
    (document, lines), (again, _) = run_in_new_process(), run_in_new_process()
    assert lines[-1] == "[]"
    assert document == again
    assert document["run_id"] is None
    assert document["model_uri"] == "models:/reviews/1"
    assert document["registered_by"] == tracker.client().get_model_version("reviews", "1").run_id
    assert document["page"] == f"#/experiments/{place}/runs/{document['registered_by']}"
    assert set(document["stages"].values()) == {"reused"}
    assert document["test"]["scores"]["accuracy"] == pytest.approx(
        tracker.client().get_run(in_full).data.metrics["test/accuracy"]
    )
    queued = {path.stem for path in outbox.folder().glob("*.json")}
    assert len(queued) == 2

    delivered = reused.deliver_runs()
    assert list(delivered.values()) == [True, True], "both runs arrive"
    assert reused.deliver_runs() == {}
    wanted = recorded_as(in_full)
    for run_id in delivered:
        assert recorded_as(run_id) == wanted
        assert tracker.client().get_run(run_id).data.tags[tracker.TOKEN_TAG] in queued


@pytest.mark.parametrize("command", [("compare", "0000", "1111"), ("rerun", "0000")])
def test_commands_that_look_for_runs_deliver_first(project: Path, command: tuple[str, ...]) -> None:
    assert apf("run", "reviews.yaml") == 0
    [file] = outbox.folder().glob("*.json")
    assert apf(*command) == 1  # there is no run of that name
    assert tracker.run_of_token(tracker.experiment_id("reviews"), file.stem) is not None
    assert list(outbox.folder().iterdir()) == []


def test_a_retraining_that_finds_nothing_new_delivers_first(project: Path) -> None:
    assert apf("run", "reviews.yaml") == 0
    [file] = outbox.folder().glob("*.json")
    assert retrain.fn("reviews.yaml").outcome == "nothing new"
    assert tracker.run_of_token(tracker.experiment_id("reviews"), file.stem) is not None


def test_a_delivery_cut_short_leaves_one_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert apf("run", "reviews.yaml") == 0
    [file] = outbox.folder().glob("*.json")
    kept = file.read_text()
    place = tracker.experiment_id("reviews")
    tracker.new_run("reviews", "cut short", {"apf.kind": "pipeline"}, file.stem)
    [run_id] = reused.deliver_runs()
    found = tracker.run_of_token(place, file.stem)
    assert found is not None
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    pending = reused.PendingRun.model_validate_json(kept)
    assert (found.info.start_time, found.info.end_time) == (pending.started_ms, pending.ended_ms)
    file.write_text(kept)  # as if the file had not been removed
    assert reused.deliver_runs() == {run_id: True}
    assert len(tracker.client().search_runs([place], f"tags.`{tracker.TOKEN_TAG}` = '{file.stem}'")) == 1


def test_what_cannot_be_delivered_stays_and_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outbox.folder().mkdir(exist_ok=True)
    (outbox.folder() / "0123.json").write_text("{}")
    assert apf("reconcile") == 0
    assert "0123.json is pending" in "".join(capsys.readouterr().out.split("\n"))
    assert (outbox.folder() / "0123.json").is_file()


def loses_version(project: Path) -> None:
    tracker.client().delete_model_version("reviews", "1")


def loses_model(project: Path) -> None:
    tracker.client().delete_registered_model("reviews")


def loses_result(project: Path) -> None:
    shutil.rmtree(project / "mlruns" / "stages" / "evaluate")


def loses_rows(project: Path) -> None:
    (project / "rows.jsonl").unlink()


@pytest.mark.parametrize("lose", [loses_version, loses_model, loses_result, loses_rows])
def test_what_is_lost_is_no_reused_run(project: Path, lose: Any) -> None:
    experiment = load_params("reviews.yaml")
    assert reused.stored_run(experiment, pipeline) is not None
    lose(project)
    assert reused.reuse(experiment, pipeline) is None
    assert not list(outbox.folder().glob("*.json"))


def test_an_error_of_the_lines_is_left_to_the_run() -> None:
    def lines(experiment: Params) -> None:
        raise DataError("rows", "rows", "none", "Add some.")

    assert reused.stored_run(Params.model_construct(name="broken"), lines) is None
