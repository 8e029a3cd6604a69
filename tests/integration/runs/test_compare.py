"""Past runs compared and repeated, from what MLflow has of them; the params file is gone by then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from apf_tasks.cache import store
from apf_tasks.cache.journal import journal
from apf_tasks.errors import RegistryError
from apf_tasks.runs.differences import provenance_diff
from apf_tasks.runs.experiments import load_params
from apf_tasks.tracking import run_logger, tracker
from apf_tasks.tracking.past_runs import past_run
from apf_tasks.tracking.provenance import Provenance
from flows.cli.main import main
from tests.support.paths import PROJECT

pytestmark = pytest.mark.usefixtures("prefect_server")

PARAMS = "params/smoke/sentiment.yaml"
LITTLE = {"search": {}, "test.resamples": 200, "test.before_fine_tuning": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project folder and its runs: a good one, a poor one, and one on fewer rows."""
    from flows.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(PROJECT / "params" / "smoke", folder / "params" / "smoke")
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APF_MLRUNS", str(folder / "mlruns"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        wanted: dict[str, dict[str, Any]] = {
            "good": {"train.learning_rate": 2e-3, "train.epochs": 4},
            "poor": {"train.learning_rate": 1e-5, "train.epochs": 1},
            "fewer": {"train.learning_rate": 2e-3, "train.epochs": 1, "data.max_rows": 180},
        }
        for name, overrides in wanted.items():
            with journal() as done:
                fine_tune(PARAMS, LITTLE | overrides)
            runs[name] = done.run_id
        (folder / PARAMS).unlink()
    return folder, runs


@pytest.fixture
def project(made: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APF_MLRUNS", str(made[0] / "mlruns"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(made[0])
    return made[0]


@pytest.fixture
def runs(made: tuple[Path, dict[str, str]]) -> dict[str, str]:
    return made[1]


def apf(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(list(arguments)))
    return ended.value.code


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert apf(*arguments, "--json") in (0, None), capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_runs_side_by_side(project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    picture = project / "two.png"
    assert apf("compare", runs["poor"][:10], "models:/sentiment/1", "-o", str(picture)) in (0, None)
    said = capsys.readouterr().out
    assert "B is reliably better than A by +" in said
    assert "Compared on the same 42 test rows" in said
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert max(map(len, said.splitlines())) <= 100
    found = document(capsys, "compare", runs["poor"], runs["good"], "-o", str(picture))
    assert {name: len(values) for name, values in found["params"].items()} == {
        "train.learning_rate": 2,
        "train.epochs": 2,
    }
    assert found["params"]["train.learning_rate"] == ["1e-05", "0.002"]
    recorded = past_run(runs["good"]).metrics
    assert found["runs"]["B"]["scores"]["accuracy"] == recorded["test/accuracy"]
    # the statistics of the recorded predictions give the recorded scores again
    assert found["runs"]["B"]["shared_scores"]["accuracy"] == pytest.approx(recorded["test/accuracy"])
    assert found["pairs"][0]["reliable"]
    curve = found["runs"]["B"]["validation"]
    assert [point["epoch"] for point in curve][-1] == 4
    assert max(point["score"] for point in curve) == recorded["validation/accuracy"]


def test_runs_with_other_test_rows_are_compared_on_those_they_share(
    project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [runs[name] for name in ("good", "poor", "fewer")]
    found = document(capsys, "compare", *names, "-o", str(project / "three.png"))
    fewer = found["runs"]["C"]["test_rows"]
    assert found["shared_rows"] == fewer < found["runs"]["A"]["test_rows"]
    assert len(found["pairs"]) == 3
    assert apf("compare", *names, "-o", str(project / "three.png")) in (0, None)
    assert f"Compared on the {fewer} that all have" in " ".join(capsys.readouterr().out.split())


def test_what_is_no_run_to_compare_is_said(
    project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    trial = past_run(runs["good"]).chosen_run
    assert trial
    for names, message in (
        ([runs["good"], runs["good"][:8]], "the same run by"),
        ([runs["good"]], "at least two runs"),
        ([runs["good"], trial], f"It belongs to the pipeline run {runs['good']}"),
        ([runs["good"], "ffffffff"], "expected one pipeline run, found none"),
        ([runs["good"], "no such thing"], "a prefix of one, or models:/NAME@ALIAS"),
    ):
        assert apf("compare", *names) == 1
        assert message in capsys.readouterr().err
    assert not (project / "compare.png").exists()


def test_a_rerun_needs_no_params_file_and_reuses_everything(
    project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert apf("rerun", "models:/sentiment@champion") in (0, None)
    said = capsys.readouterr().out
    assert "Equal: all 13 numbers and 42 predicted rows are the same to the last bit." in said
    assert "10 of 10 stages reused, 0 computed" in said
    found = document(capsys, "rerun", runs["good"])
    assert set(found["stages"].values()) == {"reused"}
    assert found["equal"]
    assert not [line for line in found["today"] if not line["same"]], "the same environment as then"
    again = past_run(found["run_id"])
    assert again.provenance.params_file == f"runs:/{runs['good']}/params.yaml"
    assert again.params == past_run(runs["good"]).params
    assert tracker.client().get_run(again.run_id).data.tags["apf.rerun_of"] == runs["good"]


def test_computed_again_on_the_same_cpu_it_gives_the_same_bits(
    project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def left() -> tuple[int, int, list[str]]:
        client = tracker.client()
        experiment = client.get_experiment_by_name("sentiment").experiment_id
        versions = client.search_model_versions("name = 'sentiment'")
        return len(client.search_runs([experiment])), len(versions), sorted(p.name for p in store.root().iterdir())

    before = left()
    found = document(capsys, "rerun", runs["good"], "--fresh")
    assert set(found["stages"].values()) == {"ran"}
    assert found["predictions"] == {"rows": 42, "predicted": 42, "exact": 42}
    assert found["equal"]
    assert left() == before
    tags = tracker.client().get_run(runs["good"]).data.tags
    assert tags["apf.computed_again"].endswith("equal")


def test_changed_data_are_said_before_they_are_used(project: Path, runs: dict[str, str]) -> None:
    source = project / "params" / "smoke" / "data" / "sentiment.jsonl"
    text = source.read_text()
    past = past_run(runs["poor"])
    source.write_text(text + '{"text": "one more", "label": "good"}\n')
    try:
        other = [line.what for line in provenance_diff(past.provenance, past.params) if not line.same]
    finally:
        source.write_text(text)
    assert other == ["content of data.source"]
    assert load_params(f"runs:/{runs['poor']}") == past.params


def test_a_different_outcome_is_said(project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    run_logger.log_metrics(runs["poor"], {"test/accuracy": 0.125})
    found = document(capsys, "rerun", runs["poor"])
    assert not found["equal"]
    assert found["scores"]["test/accuracy"]["recorded"] == 0.125
    assert found["predictions"] == {"rows": 42, "predicted": 42, "exact": 42}
    assert apf("rerun", runs["poor"]) in (0, None)
    assert "Different: 1 of 13 numbers; 42 of 42 predictions are the same." in capsys.readouterr().out


def test_a_run_whose_files_are_gone(project: Path, runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    files = store.root() / "artifacts" / "sentiment" / runs["fewer"]
    shutil.move(files, project / "aside")
    try:
        for command in (["rerun", runs["fewer"]], ["compare", runs["good"], runs["fewer"]]):
            assert apf(*command) == 1
            said = capsys.readouterr().err
            assert f"run {runs['fewer'][:8]}: expected the artifact params.yaml" in said
            assert "run its params file again" in said
    finally:
        shutil.move(project / "aside", files)
    (files / "artifacts" / "provenance.json").write_text("{")
    with pytest.raises(RegistryError, match="it cannot be read"):
        past_run(runs["fewer"])


def test_what_a_run_records(project: Path, runs: dict[str, str]) -> None:
    facts: Provenance = past_run(runs["good"]).provenance
    assert (facts.params_file, facts.folder) == (PARAMS, str(project))
    stages = {(f.stage, f.label): f for f in facts.stages}
    assert len(stages) == 10
    trained = stages["train_model", ""]
    assert trained.inputs["train.learning_rate"] == 2e-3
    assert {"apf_tasks.training.train", "apf_tasks.training.loop"} <= trained.code.keys()
    assert {"python", "cpu", "threads", "torch", "transformers"} <= trained.environment.keys()
    assert stages["split_rows", ""].inputs["content of raw"] == stages["ingest", ""].handle["fingerprint"]
    assert tracker.client().get_run(runs["good"]).data.tags["apf.params_file"] == PARAMS
