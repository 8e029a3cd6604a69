"""`apf curve` through real Prefect and MLflow: what is known is not trained again, and the test split stays closed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apf_tasks.cache.journal import journal
from apf_tasks.params.file import load_params
from apf_tasks.pipelines import pipeline
from apf_tasks.tracking import tracker
from flows.cli.main import main
from flows.cli.runs.plan import estimate_plan
from tests.support.paths import PROJECT

NER = ["params/smoke/ner.yaml", "train.epochs=2", "test.resamples=200"]


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code in (0, None)


@pytest.mark.usefixtures("prefect_server")
def test_a_curve_trains_only_what_is_new(
    mlruns: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)

    def curve(fractions: str) -> dict[str, object]:
        run("curve", *NER, "--fractions", fractions, "--json")
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])  # type: ignore[no-any-return]

    first = curve("0.25,0.5,1")
    assert "tokenize test" not in first["stages"]
    assert [point["rows"] for point in first["curve"]["points"]] == [38, 76, 152]  # type: ignore[index]
    assert "at least 4 points" in first["curve"]["verdict"]  # type: ignore[index]

    second = curve("1,0.5,0.25")
    assert set(second["stages"].values()) == {"reused"}  # type: ignore[attr-defined]

    third = curve("0.125,0.25,0.5,1")
    ran = {name for name, status in third["stages"].items() if status == "ran"}  # type: ignore[attr-defined]
    assert ran == {"take_rows 0.125 of train", "train_model 0.125 of train", "learning_curve"}

    client = tracker.client()
    record = client.get_run(str(third["run_id"]))
    assert record.data.tags["apf.kind"] == "curve"
    points = {p.step: p.value for p in client.get_metric_history(record.info.run_id, "validation/f1")}
    assert points == {p["rows"]: p["score"] for p in third["curve"]["points"]}  # type: ignore[index]
    assert {f.path for f in client.list_artifacts(record.info.run_id, "curve")} == {
        "curve/curve.json",
        "curve/curve.png",
    }
    data = {i.dataset.name: json.loads(i.dataset.profile)["rows"] for i in record.inputs.dataset_inputs}
    assert data["train"] == 152
    assert "test" not in data

    params = load_params(NER[0], NER[1:])
    with journal(dry=True) as book:
        pipeline(params)
    assert [v.status for v in book.stage_runs if v.stage == "train_model"] == [
        "reused"
    ]  # the whole of train is the same
    other = load_params(NER[0], [*NER[1:], "train.batch_size=8"])
    with journal(dry=True) as book:
        pipeline(other)
    found = estimate_plan(book.stage_runs, other, measure=True)
    assert found is not None
    assert found.estimate.steps == 38
    assert found.speed is not None
    assert found.speed.tokens_per_second > 0
    assert 0.1 < found.speed.peak_gib < 64


@pytest.mark.parametrize("fractions", ["0.5,2", "0,1", "half", ""])
def test_fractions_are_checked_before_anything_starts(fractions: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curve", str(PROJECT / NER[0]), "--fractions", fractions]) == 1
    assert "--fractions: expected numbers above 0 and up to 1" in capsys.readouterr().err
