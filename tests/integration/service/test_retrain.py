"""Retraining: nothing new, new rows, a gate that refuses and one that promotes, on real models and a real registry."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from apf_tasks.cache import store
from apf_tasks.data.rows import read_rows
from apf_tasks.errors import ParamsError, PromotionRefusedError, SourceError
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params
from apf_tasks.promotion.champion_rows import champion_split
from apf_tasks.tracking import tracker
from apf_tasks.tracking.champion import history
from apf_tasks.tracking.past_runs import artifact, past_run
from apf_tasks.tracking.registry import aliases_of
from flows.promote import promote
from flows.retrain import retrain
from tests.support.paths import PROJECT
from tests.support.projects import apf, write_project
from tests.support.tiny import review_rows, tiny_bert, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What a web server got: the path and the document of every request. Its address is in the environment."""
    received: list[tuple[str, dict[str, Any]]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever).start()
    monkeypatch.setenv("TEAM_ADDRESS", f"http://127.0.0.1:{server.server_port}")
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    gate = {
        "latency_growth": 20,
        "size_growth": 1.5,
        "label_loss": 0.5,
        "slice_loss": 0.5,
        "minimum": 0.4,
        "forgetting": 0.2,
        "serves": False,
    }
    split = {"validation_fraction": 0.2, "test_fraction": 0.4, "near_duplicate_similarity": None}
    base, train = tiny_bert(tmp_path / "tiny"), {"epochs": 1, "batch_size": 16, "learning_rate": 1e-5}
    write_project(tmp_path, base, split=split, train=train, gate=gate)
    return tmp_path


@pytest.mark.slow
def test_from_nothing_new_to_a_new_champion_and_back(
    project: Path, told: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    params = yaml.safe_load((project / "reviews.yaml").read_text())
    params["notify"] = {"webhook": "${TEAM_ADDRESS}/hook", "block": "custom-webhook/team"}
    (project / "reviews.yaml").write_text(yaml.safe_dump(params))
    said = {"title": "{{subject}}", "text": "{{body}}"}
    team = CustomWebhookNotificationBlock(name="team", url=os.environ["TEAM_ADDRESS"] + "/block", json_data=said)
    team.save("team", overwrite=True)

    first = retrain("reviews.yaml")
    assert (first.outcome, first.version) == ("first champion", 1)
    assert first.reason.startswith("ingest: first time")
    champions_test = champion_split("reviews").path / "test.parquet"
    again = retrain("reviews.yaml")
    assert (again.outcome, again.version) == ("nothing new", None)

    write_jsonl(project / "rows.jsonl", review_rows(400))
    assert retrain("reviews.yaml", dry_run=True).outcome == "would retrain"
    with pytest.raises(PromotionRefusedError, match="beat_champion: reliably better than the champion by accuracy"):
        retrain("reviews.yaml")  # hardly learns, as the first one
    assert aliases_of("reviews") == {"champion": 1, "challenger": 2}
    assert retrain("reviews.yaml").outcome == "nothing new"

    changes = {"train.learning_rate": 4e-3, "train.epochs": 8, "gate.serves": True, "gate.approve": True}
    better = retrain("reviews.yaml", changes)
    assert (better.outcome, better.version) == ("waiting for approval", 3)
    assert aliases_of("reviews") == {"champion": 1, "challenger": 3}
    assert tracker.client().get_model_version("reviews", "3").tags["apf.approval"] == "waiting"
    with pytest.raises(ParamsError, match=r"expected a reason, as gate\.approve requires a person, found none"):
        promote("reviews")
    verdict = promote("reviews", why="I have read its errors")
    rules = {rule.name: rule for rule in verdict.rules}
    judged = {
        "minimum",
        "beat_champion",
        "label_loss",
        "slice_loss",
        "size_growth",
        "latency_growth",
        "forgetting",
        "serves",
    }
    assert set(rules) == judged
    assert not [rule for rule in rules.values() if not rule.passed], "every rule lets the challenger pass"
    assert "is reliably better than models:/reviews/1" in rules["beat_champion"].found
    old, newer = verdict.trade_off
    assert (old.name, newer.name) == ("the champion's test rows", "newer test rows")
    assert old.rows == len(read_rows(champions_test))  # of those none has come into train
    assert f"on {old.rows + newer.rows} test rows" in rules["minimum"].found
    assert rules["forgetting"].found == f"{old.challenger - old.champion:+.4f} on {old.rows} rows"
    assert aliases_of("reviews") == {"champion": 3, "previous": 1, "challenger": 3}
    versions = {v.version: v for v in tracker.client().search_model_versions("name='reviews'")}
    assert versions[2].tags["apf.gate"].startswith("failed against models:/reviews/1: beat_champion")
    assert versions[3].tags["apf.gate"] == "passed against models:/reviews/1"
    drift = tracker.client().get_run(versions[3].run_id).data
    assert drift.tags["apf.drift"].startswith("200 new rows against 200")
    assert {"drift/auc", "drift/embeddings", "drift/psi_words"} <= set(drift.metrics)
    assert versions[3].tags["apf.approval"] == history("reviews").moves[-1].why == "I have read its errors"

    (project / "rows.jsonl").rename(project / "elsewhere.jsonl")
    with pytest.raises(SourceError):
        retrain("reviews.yaml")
    (project / "elsewhere.jsonl").rename(project / "rows.jsonl")
    assert [path for path, _ in told] == ["/hook", "/block"] * 5
    hooks, blocks = [body for _, body in told[::2]], [body for _, body in told[1::2]]
    assert [(body["event"], body["version"]) for body in hooks] == [
        ("promoted", 1),
        ("refused", 2),
        ("waiting", 3),
        ("promoted", 3),
        ("failed", None),
    ]
    assert not [body for body in hooks if "flow-run" not in body["flow_run"]], "each message links to its flow run"
    assert hooks[1]["champion"] == "models:/reviews/1"
    assert hooks[1]["mlflow_run"] == versions[2].run_id
    assert {rule["name"]: rule["passed"] for rule in hooks[1]["gate"]}["beat_champion"] is False
    assert "train.learning_rate 1e-05" in hooks[2]["reason"]
    assert "rows.jsonl" in hooks[4]["reason"]
    assert [body["title"] for body in blocks] == [
        "apf: reviews/1 is the champion now",
        "apf: reviews/2 was refused",
        "apf: reviews/3 waits for approval",
        "apf: reviews/3 is the champion now",
        "apf: reviews failed",
    ]
    assert [body["text"] for body in blocks] == [body["text"] for body in hooks]
    assert "FAILED beat_champion: " in blocks[1]["text"]

    capsys.readouterr()
    assert apf("rollback", "reviews", "--why", "customers complain") == 0
    assert "version 1 is the champion now, in place of version 3" in capsys.readouterr().out
    assert apf("registry", "history", "reviews", "--json") == 0
    moves = json.loads(capsys.readouterr().out)["moves"]
    assert [(move["kind"], move["version"]) for move in moves] == [("promote", 1), ("promote", 3), ("rollback", 1)]
    assert apf("promote", "reviews", "2") == 1
    assert "The champion stays models:/reviews/1" in capsys.readouterr().err
    assert apf("promote", "reviews", "--no-gate", "--why", "they were wrong", "--json") == 0
    assert json.loads(capsys.readouterr().out)["version"] == 3
    assert aliases_of("reviews")["champion"] == 3
    for command in (["ls"], ["show", "reviews"], ["history", "reviews"]):
        assert apf("registry", *command) == 0
    said = capsys.readouterr().out
    assert "customers complain" in said
    assert "champion" in said


def test_rows_of_another_kind_are_noticed(project: Path) -> None:
    from flows.drift import drift

    rows = review_rows(500)
    random.Random(0).shuffle(rows)
    write_jsonl(project / "rows.jsonl", rows[:300])
    retrain("reviews.yaml")
    write_jsonl(project / "rows.jsonl", rows)
    alike = drift("reviews.yaml")
    assert alike.drifted == ()
    assert alike.rows_new > 100, "enough rows to judge"
    assert 0.3 < (alike.auc or 0) < 0.7, "rows of the same kind are not told apart"
    others = [
        {"text": f"order {i} arrived late, the parcel was {word} and the courier did not ring", "label": "negative"}
        for i, word in enumerate(["torn", "wet", "open", "lost"] * 30)
    ]
    write_jsonl(project / "rows.jsonl", [*rows[:300], *others])
    found = drift("reviews.yaml")
    assert found.rows_new == 120
    assert [reason for reason in found.drifted if reason.startswith("psi of labels")], found.drifted
    assert [reason for reason in found.drifted if "AUC" in reason], found.drifted
    assert (alike.embeddings or 0) < 0.02 < 0.1 < (found.embeddings or 0)
    assert found.unknown_words > 0.5, "most words are new"
    assert found.p_values["labels"] < 0.001
    few = drift("reviews.yaml", {"drift.rows": 500})
    assert (few.auc, few.drifted) == (None, ())


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "hash",
        pytest.param(
            "random",
            marks=pytest.mark.xfail(
                strict=True, reason="all rows are dealt out anew when there are more, some from train to test"
            ),
        ),
    ],
)
def test_the_champion_is_not_judged_by_rows_that_it_was_trained_on(project: Path, method: str) -> None:
    """Where rows have been added, by a tenth."""
    rows, changes = review_rows(220), {"split.method": method, "split.test_fraction": 0.2}
    write_jsonl(project / "rows.jsonl", rows[:200])
    retrain("reviews.yaml", changes)
    learned = set(read_rows(champion_split("reviews").path / "train.parquet")["text"])
    write_jsonl(project / "rows.jsonl", rows)
    with contextlib.suppress(PromotionRefusedError):
        retrain("reviews.yaml", changes)
    judged = [
        set(read_rows(path)["text"]) & learned for path in store.stage_folder("contend").glob("*/predictions.parquet")
    ]
    assert judged
    assert set().union(*judged) == set()


def test_a_language_model_is_also_asked_about_general_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.fine_tune import fine_tune

    monkeypatch.chdir(PROJECT)
    (tmp_path / "general.txt").write_text(
        "The train to the coast leaves at noon.\n\nNobody on board has read the plan.\n"
    )
    params = {"train.epochs": 1, "train.evaluate_every_epochs": 1}
    asked = {"gate.general_text": str(tmp_path / "general.txt"), "gate.perplexity_growth": 1e-3, "gate.serves": False}
    fine_tune("params/smoke/causal_lm-instructions.yaml", params)
    fine_tune("params/smoke/causal_lm-instructions.yaml", params | asked | {"train.learning_rate": 1e-3})
    with pytest.raises(
        PromotionRefusedError, match=r"perplexity_growth: at most 0.001 times the champion's perplexity"
    ):
        promote("causal_lm-instructions")
    run_id = tracker.client().get_model_version("causal_lm-instructions", "2").run_id
    general = json.loads(artifact(run_id, "gate.json").read_text())["trade_off"][-1]
    assert (general["name"], general["rows"], general["metric"]) == ("general text", 2, "perplexity")
    assert general["challenger"] != general["champion"]
    with pytest.raises(ParamsError, match=r"gate.general_text: expected a language model, found the family sentiment"):
        load_params("params/smoke/sentiment.yaml", {"gate.general_text": "general.txt"})


def test_a_search_starts_from_the_champion_once_there_is_one(project: Path) -> None:
    params = yaml.safe_load((project / "reviews.yaml").read_text())
    alias = "models:/reviews@champion"
    params["search"] = {"space": {"model.base": [params["model"]["base"], alias]}}
    params["gate"] = {"beat_champion": False, "serves": False}
    (project / "reviews.yaml").write_text(yaml.safe_dump(params))
    assert retrain("reviews.yaml").outcome == "first champion"
    assert retrain("reviews.yaml").outcome == "nothing new"  # that there is a champion by now is no news
    write_jsonl(project / "rows.jsonl", review_rows(260))
    assert retrain("reviews.yaml").outcome == "promoted"
    run = past_run("models:/reviews/2")
    assert isinstance(run.params, Params)
    assert run.params.search.space["model.base"] == [params["model"]["base"], "models:/reviews/1"]
    assert len(tracker.client().search_runs(tracker.experiment_ids(), f"tags.mlflow.parentRunId = '{run.run_id}'")) == 2
    assert aliases_of("reviews")["champion"] == 2
    assert retrain("reviews.yaml").outcome == "nothing new"
    with pytest.raises(ParamsError, match="expected a model that exists, found only models:/reviews@best"):
        retrain("reviews.yaml", {"search.space.model.base": ["models:/reviews@best"]})
