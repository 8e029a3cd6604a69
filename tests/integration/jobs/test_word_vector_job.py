"""Word vectors through real Prefect, MLflow and gensim: from sentences to a registered model that answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.cache.journal import PipelineRun, journal
from apf_tasks.errors import DataError, RegistryError
from apf_tasks.evaluation.registered.model import load_registered
from apf_tasks.models.word_vectors import nearest, read_word_vectors, similarity
from apf_tasks.params.file import load_word_vectors
from apf_tasks.pipelines import word_vector_pipeline
from apf_tasks.planning.plan import plan_stages
from apf_tasks.tracking import tracker
from apf_tasks.word_vectors.artifacts import TrainedVectors, VectorReport
from apf_tasks.word_vectors.similar import similar
from flows.cli.main import main
from tests.support.paths import PROJECT
from tests.support.projects import handle, work_in_copy, working_in

pytestmark = pytest.mark.usefixtures("prefect_server")

STAGES = ["read_corpus", "train_vectors", "probe_vectors", "register_vectors"]
SMOKE = PROJECT / "params" / "smoke"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder after one run; each test works on a copy."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(SMOKE / "data" / "word-vectors.jsonl", folder / "text.jsonl")
    params = yaml.safe_load((SMOKE / "word-vectors.yaml").read_text())
    params["data"]["source"] = "text.jsonl"
    params["probe"]["words"].append("zebra")
    (folder / "words.yaml").write_text(yaml.safe_dump(params))
    with working_in(folder):
        assert ran(run()) == STAGES
    return folder


@pytest.fixture
def project(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder after the first run, to work in."""
    return work_in_copy(first, tmp_path, monkeypatch)


def run(**overrides: Any) -> PipelineRun:
    from flows.word_vectors import word_vectors

    with journal() as done:
        word_vectors("words.yaml", {name.replace("__", "."): v for name, v in overrides.items()})
    return done


def ran(done: PipelineRun) -> list[str]:
    return [visit.stage for visit in done.stage_runs if visit.status != "reused"]


def command(arguments: list[str]) -> int:
    """The exit status of `apf`."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


def test_a_second_run_computes_nothing_and_is_recorded(project: Path) -> None:
    done = run()
    assert ran(done) == []
    client = tracker.client()
    experiment = client.get_experiment_by_name("words")
    runs = {r.info.run_id: r for r in client.search_runs([experiment.experiment_id])}
    assert sorted(r.data.tags["apf.kind"] for r in runs.values()) == ["pipeline", "pipeline", "trial"]
    latest, trained = runs[done.run_id], handle(done, TrainedVectors)
    assert latest.data.params["vectors.dimensions"] == "32"
    assert latest.data.metrics["held_out/accuracy"] == trained.held_out_accuracy
    assert latest.data.metrics["test/analogies_first"] == handle(done, VectorReport).analogies_first / 2
    assert latest.data.tags["apf.stage.train_vectors"] == "reused"
    assert trained.run_id in latest.data.tags["mlflow.note.content"]
    assert [d.dataset.name for d in latest.inputs.dataset_inputs] == ["corpus"]
    points = client.get_metric_history(trained.run_id, "held_out/loss")
    assert [p.step for p in points] == list(range(61))
    assert points[-1].value < points[0].value
    files = {f.path for f in client.list_artifacts(done.run_id, "words")}
    assert files == {
        f"words/{name}" for name in ("analogies.csv", "map.csv", "map.png", "map.svg", "nearest.csv", "report.json")
    }


def test_the_tables_of_a_run(project: Path) -> None:
    done = run()
    found = mlflow.artifacts.load_dict(f"runs:/{done.run_id}/tables/nearest.json")
    rows = {row[0]: row for row in found["data"]}
    assert found["columns"] == ["word", "count", "nearest"]
    assert set(rows) == {"cat", "apple", "paris", "king", "castle", "zebra"}
    assert {part.split()[0] for part in rows["paris"][2].split(", ")} >= {"rome", "berlin", "madrid"}
    assert rows["zebra"][1:] == ["0", "Ask for a word of the text it was trained on."]
    questions = mlflow.artifacts.load_dict(f"runs:/{done.run_id}/tables/analogies.json")
    assert questions["data"][0][:2] == ["actor : actress = uncle : ?", "aunt"]
    report = json.loads((handle(done, VectorReport).path / "report.json").read_text())
    assert len(report["epochs"]) == 61
    assert report["nearest"]["zebra"] == {"unknown": "Ask for a word of the text it was trained on."}
    assert handle(done, VectorReport).unknown_probes == 1


def test_the_registered_model_answers(project: Path) -> None:
    done = run()
    registered = handle(done, RegisteredModel)
    assert (registered.aliases, registered.replayed_rows) == (("challenger", "champion"), 32)
    model = load_registered("models:/words@champion")
    rows = pd.DataFrame({"word": ["Paris", "king", "zebra"], "other": ["rome", None, "cat"]})
    answers = model.predict(rows, count=3)
    table = read_word_vectors(handle(done, TrainedVectors).path)
    assert [n["word"] for n in json.loads(answers["nearest"][0])] == [n.word for n in nearest(table, "paris", 3)]
    assert answers["similarity"][0] == pytest.approx(similarity(table, "paris", "rome"))
    assert answers["similarity"].isna().tolist() == [False, True, True]
    assert answers["problem"].tolist()[:2] == ["", ""]
    assert answers["problem"][2].startswith("unknown word 'zebra'")
    assert len(json.loads(model.predict(rows[["word"]])["nearest"][1])) == 10
    folder = Path(mlflow.artifacts.download_artifacts("models:/words@champion"))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".bin", ".pickle")]
    assert "held-out sentences" in (folder / "artifacts" / "model" / "README.md").read_text()


def test_other_probes_train_nothing(project: Path) -> None:
    done = run(probe__words=["dog"], probe__similarities="wordsim353")
    assert ran(done) == ["probe_vectors", "register_vectors"]
    assert handle(done, VectorReport).similarity_pairs == 2, "king and queen, day and summer"
    assert handle(done, RegisteredModel).aliases == ("challenger",)
    done = run(vectors__dimensions=16)
    assert ran(done) == ["train_vectors", "probe_vectors", "register_vectors"]
    assert next(v.reason for v in done.stage_runs if v.stage == "train_vectors") == "vectors.dimensions 32 → 16"


def test_trained_again_the_vectors_are_the_same(project: Path) -> None:
    before = handle(run(), TrainedVectors)
    shutil.rmtree(before.path)
    done = run()
    assert ran(done) == ["train_vectors"], "what depends on the vectors is kept, for they are the same"
    assert handle(done, TrainedVectors).fingerprint == before.fingerprint


def test_similar(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["similar", "models:/words@champion", "Rome", "-n", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines[1:]} == {"paris", "berlin", "madrid"}
    assert command(["similar", "models:/words@champion", "rome", "paris"]) == 0
    assert float(capsys.readouterr().out.removeprefix("rome · paris: ")) > 0.8
    with pytest.raises(DataError, match=r"a known word, found 'romme'\. Did you mean 'rome'\?"):
        similar("models:/words@champion", "romme", None, 3)
    with pytest.raises(DataError, match=r"found 'castel'\. Did you mean 'castle'\?"):
        similar("models:/words@champion", "rome", "castel", 3)
    with pytest.raises(RegistryError, match="a registered model version"):
        similar("models:/other@champion", "rome", None, 3)


def test_the_commands_know_the_section(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "words.yaml"]) == 0
    assert capsys.readouterr().out == "words: fine. Word vectors, skip_gram, 32 dimensions.\n"
    assert command(["plan", "words.yaml", "vectors.epochs=2", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [(s["stage"], s["status"]) for s in stages] == [
        ("read_corpus", "reused"),
        ("train_vectors", "runs"),
        ("probe_vectors", "runs"),
        ("register_vectors", "runs"),
    ]
    for name in ("run", "vectors"):
        assert command([name, "words.yaml", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["stages"] == dict.fromkeys(STAGES, "reused")
        assert document["model_uri"] == "models:/words/1"
        assert document["training"]["settings"]["dimensions"] == 32
    assert command(["vectors", "words.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "dog 0.9" in shown
    assert "this run: to be recorded" in " ".join(shown.split())


def test_a_plan_of_a_new_text(project: Path) -> None:
    with (project / "text.jsonl").open("a") as file:
        file.write(json.dumps({"text": "One sentence more."}) + "\n")
    stage_runs = plan_stages(load_word_vectors("words.yaml"), word_vector_pipeline)
    assert [found.stage for found in stage_runs if found.status == "runs"] == STAGES
    assert stage_runs[0].reason == "content of data.source changed"


def test_a_broken_run_is_recorded(project: Path) -> None:
    with pytest.raises(DataError, match="a column 'texts'"):
        run(data__columns={"text": "texts"})
    experiment = tracker.client().get_experiment_by_name("words")
    failed = tracker.client().search_runs([experiment.experiment_id], "attributes.status = 'FAILED'")
    assert len(failed) == 1
    assert "DataError" in failed[0].data.tags["apf.error"]


def test_chinese(project: Path) -> None:
    shutil.copy(SMOKE / "data" / "word-vectors-zh.jsonl", project / "text.jsonl")
    done = run(probe__words=["北京"], probe__analogies=[])
    assert handle(done, RegisteredModel).version == 2
    found = similar("models:/words@challenger", "北京", "上海", 3)
    assert {n["word"] for n in json.loads(found["nearest"])} == {"上海", "广州", "成都"}
    assert found["similarity"] > 0.8
