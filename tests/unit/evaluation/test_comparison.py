"""Comparing runs on the rows that they share, and what is recorded so that a run can be repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from apf_tasks.cache import code_digest
from apf_tasks.cache.environment import environment
from apf_tasks.data.rows import write_rows
from apf_tasks.errors import DataError
from apf_tasks.evaluation.comparison import RunPredictions, compare, shared_rows
from apf_tasks.evaluation.metrics.bootstrap import paired_bootstrap
from apf_tasks.family import get_family
from apf_tasks.params._yaml import params_yaml
from apf_tasks.params.family import FamilyParams, family_params
from apf_tasks.params.file import load_experiment, load_params, written_in
from apf_tasks.params.search import EvaluationParams
from apf_tasks.runs.differences import in_original_folder, provenance_diff
from apf_tasks.runs.rerun import PredictionMatch, same_predictions
from apf_tasks.stages import ingest, select
from apf_tasks.tracking.provenance import Provenance, StageFacts
from tests.support.paths import PROJECT

SETTINGS = EvaluationParams(resamples=1000)


def family(name: str, **options: object) -> FamilyParams:
    return family_params(name).model_validate({"name": name, **options})


def labelled(name: str, right: int, wrong: int, start: int = 0, **changes: object) -> RunPredictions:
    """A run whose first `right` rows are right; texts and references depend on the row's number alone."""
    numbers = range(start, start + right + wrong)
    reference = ["yes" if i % 2 else "no" for i in numbers]
    other = {"yes": "no", "no": "yes"}
    said = [r if at < right else other[r] for at, r in enumerate(reference)]
    rows = pd.DataFrame(
        {"row_id": [f"f:{i}" for i in numbers], "text": [f"t{i}" for i in numbers], "reference": reference}
    ).assign(prediction=said)
    made = RunPredictions(name, family("sentiment"), "accuracy", rows, ("no", "yes"))
    return RunPredictions(**{**vars(made), **changes})  # type: ignore[arg-type]


def test_the_rows_that_all_have_come_in_one_order() -> None:
    first = pd.DataFrame(
        {"row_id": [1, 2, 3, 4], "text": list("abcd"), "reference": list("xxyy"), "more": list("pppp")}
    )
    second = pd.DataFrame({"row_id": [4, 3, 2, 9], "text": list("dcbz"), "reference": ["y", "x", "x", "y"]})
    tables, changed = shared_rows([first, second], ["text"])
    assert [table["row_id"].tolist() for table in tables] == [[2, 4], [2, 4]]
    assert changed == 1  # row 3 has another reference
    assert tables[1]["text"].tolist() == ["b", "d"]


def test_scores_and_the_paired_difference_on_the_shared_rows() -> None:
    good, poor = labelled("A", 30, 10), labelled("B", 12, 18, start=20)  # they share rows 20 to 39
    found = compare([good, poor], SETTINGS)
    assert found.rows == {"A": 40, "B": 30}
    assert found.shared_rows == 20
    # A is right in rows 20 to 29, B in rows 20 to 31
    assert found.scores["A"]["accuracy"] == pytest.approx(10 / 20)
    assert found.scores["B"]["accuracy"] == pytest.approx(12 / 20)
    pair = found.pairs[0]
    assert (pair.better, pair.worse, pair.alike) == ("B", "A", 18)
    statistics = [
        get_family(run.family).statistics(rows["reference"].tolist(), rows["prediction"].tolist(), ["no", "yes"])
        for run, rows in ((good, good.rows.iloc[20:]), (poor, poor.rows.iloc[:20]))
    ]
    scores = get_family(good.family).scores
    assert pair.difference == paired_bootstrap(*statistics[::-1], scores, "accuracy", 1000, 0, 0.95)
    assert not pair.reliable
    assert str(pair).startswith("B is not reliably better than A (+0.1000 accuracy, 95 % interval [+0.0000, ")


def test_a_reliable_difference_and_several_pairs() -> None:
    runs = [labelled("A", 10, 30), labelled("B", 36, 4), labelled("C", 10, 30)]
    found = compare(runs, SETTINGS)
    assert [(pair.better, pair.worse) for pair in found.pairs] == [("B", "A"), ("B", "C"), ("A", "C")]
    assert [pair.reliable for pair in found.pairs] == [True, True, False]
    assert [pair.confidence for pair in found.pairs] == [pytest.approx(100 - 5 / 3)] * 3
    assert str(found.pairs[0]).startswith("B is reliably better than A by +0.6500 accuracy, 98.33 % interval [+0.")
    assert str(found.pairs[2]) == "A and C are equal: the same accuracy in every resample."
    wide = found.pairs[0].difference
    narrow = compare(runs[:2], SETTINGS).pairs[0].difference
    assert wide.low < narrow.low < narrow.high < wide.high


def test_labels_that_one_run_alone_knows_are_measured_in_both() -> None:
    narrow, wide = labelled("A", 4, 0), labelled("B", 3, 1, label_names=("maybe", "no", "yes"))
    found = compare([narrow, wide], SETTINGS)
    assert found.scores["A"]["macro_f1"] == pytest.approx(2 / 3)  # `maybe` has no row, and counts 0


@pytest.mark.parametrize(
    ("other", "metric", "found"),
    [
        (labelled("B", 3, 1, start=100), None, "test rows that all runs have, found none. A: 4 rows such as 'f:0'"),
        (
            labelled("B", 3, 1, metric="macro_f1"),
            None,
            "one metric that decides in all, found A: accuracy · B: macro_f1",
        ),
        (labelled("B", 3, 1), "f1", "one of accuracy, macro_f1, macro_precision, macro_recall, found 'f1'"),
        (labelled("B", 3, 1, family=family("ner")), None, "runs of one family, found A: sentiment · B: ner"),
        (
            labelled("B", 3, 1, family=family("sentiment", target="labels")),
            None,
            "runs with the same scores, found A: accuracy",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(other: RunPredictions, metric: str | None, found: str) -> None:
    with pytest.raises(DataError) as error:
        compare([labelled("A", 3, 1), other], SETTINGS, metric)
    assert found in str(error.value)


def test_a_metric_that_is_asked_for_decides() -> None:
    runs = [labelled("A", 3, 1), labelled("B", 2, 2, metric="macro_f1")]
    assert compare(runs, SETTINGS, "macro_recall").pairs[0].metric == "macro_recall"


def language_model(name: str, nats: float, tokens: int) -> RunPredictions:
    texts = [f"sentence number {i}" for i in range(10)]
    rows = pd.DataFrame({"row_id": range(10), "text": texts, "reference": texts})
    rows["prediction"] = [[nats + i / 10, tokens] for i in range(10)]
    return RunPredictions(name, family("causal_lm"), "perplexity", rows, ())


def test_less_is_better_for_a_language_model() -> None:
    found = compare([language_model("A", 12, 4), language_model("B", 8, 4)], SETTINGS)
    pair = found.pairs[0]
    assert (pair.better, pair.reliable) == ("B", True)
    # mean of nats: 12.45 and 8.45 over 4 tokens
    assert pair.difference.difference == pytest.approx(np.exp(8.45 / 4) - np.exp(12.45 / 4))
    assert str(pair).startswith("B is reliably better than A by -")


def test_perplexities_of_other_tokens_are_not_compared() -> None:
    runs = [language_model("A", 12, 4), language_model("B", 8, 3)]
    with pytest.raises(DataError, match=r"the same tokens: perplexity is per token.*--metric bits_per_byte"):
        compare(runs, SETTINGS)
    assert compare(runs, SETTINGS, "bits_per_byte").pairs[0].reliable


@pytest.mark.parametrize("path", sorted(PROJECT.glob("params/**/*.yaml")), ids=lambda path: str(path.stem))
def test_recorded_params_are_a_params_file_again(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    experiment = load_experiment(path)
    again = tmp_path / "other-name.yaml"
    again.write_text(params_yaml(experiment), encoding="utf-8")
    assert load_experiment(again) == experiment


def test_recorded_texts_stay_texts_and_nothing_stays_nothing(tmp_path: Path) -> None:
    texts = {"3e-5": "no", "on": "1e3", "2020-01-01": "12:30", "null": "0x10", "好": " a: b #c", "true": ".5"}
    written = {
        "family": "sentiment",
        "data": {"source": "r.csv", "columns": {"text": "7"}, "labels": {**texts, "low": [1.0, 2.5]}},
        "model": {"base": "./m"},
        "split": {"near_duplicate_similarity": None},
        "train": {"learning_rate": 1e-5, "max_grad_norm": None},
        "register": {"name": "no"},
    }
    first = tmp_path / "first.yaml"
    first.write_text(yaml.safe_dump(written).replace("3e-5:", "'3e-5':").replace("1e3", "'1e3'"))
    params = load_params(first)
    assert list(params.data.labels)[:2] == sorted(texts)[:2]
    again = tmp_path / "again.yaml"
    again.write_text(params_yaml(params), encoding="utf-8")
    assert load_params(again) == params
    assert written_in(again)["split"]["near_duplicate_similarity"] is None
    assert load_params(again).model_name == "no"


def facts(**changes: object) -> StageFacts:
    code = code_digest.code_digests(ingest.code, "sentiment")
    known = {"stage": "ingest", "label": "", "status": "ran", "code": code, "environment": environment()}
    inputs = {"family.name": "sentiment", "content of data.source": "0" * 32}
    return StageFacts.model_validate({**known, "inputs": inputs, **changes})


def lines(folder: Path, *stages: StageFacts) -> dict[str, tuple[str, str]]:
    (folder / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    (folder / "a.yaml").write_text("{family: sentiment, data: {source: rows.jsonl}, model: {base: ./none}}")
    params = load_params(folder / "a.yaml")
    found = provenance_diff(Provenance(params_file="a.yaml", folder=str(folder), stages=stages), params)
    return {line.what: (line.then, line.now) for line in found}


def test_what_is_the_same_today_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = {
        **code_digest.code_digests(select.code, "sentiment"),
        "apf_tasks.evaluation.selection": "0",
        "apf_tasks.old": "1",
    }
    here = environment()
    elsewhere = {**here, "cpu": "another", "torch": "1.0"}
    found = lines(tmp_path, facts(), facts(stage="select", code=code, environment=elsewhere))
    assert found["content of data.source"][0] == "0" * 12 + "…"
    assert found["content of data.source"][1] not in ("", "0" * 12 + "…")
    assert found["content of model.base"] == ("not recorded", "cannot be read: no none in .")
    assert "code of ingest" not in found
    assert found["code of select"] == ("", "evaluation.selection, old changed")
    assert found["cpu"] == (f"{here['cpu']} (ingest); another (select)", here["cpu"])
    assert found["torch"] == (f"{here['torch']} (ingest); 1.0 (select)", here["torch"])
    assert found["python"][0] == found["python"][1] == here["python"]
    assert "torch" not in found["libraries"][0].split(", ")[0]


def test_results_from_before_environments_were_recorded_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = lines(tmp_path, facts(environment={}), facts(stage="no_stage", code={}, environment={}))
    assert found["cpu"][0] == "not recorded"
    assert found["code of no_stage"] == ("", "this stage no longer exists")


def test_a_run_is_repeated_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        (folder / "model").mkdir(parents=True)
    (there / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    (there / "a.yaml").write_text("{family: sentiment, data: {source: rows.jsonl}, model: {base: ./model}}")
    params = load_params(there / "a.yaml")
    recorded = Provenance(params_file="a.yaml", folder=str(there), stages=())
    monkeypatch.chdir(here)
    monkeypatch.delenv("APF_MLRUNS")
    with in_original_folder(recorded, params) as folder:
        from apf_tasks.cache import store

        assert folder == Path.cwd() == there
        assert store.root() == here / "mlruns"
    assert Path.cwd() == here
    (here / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    with in_original_folder(recorded, params) as folder:
        assert folder is None
        assert Path.cwd() == here


def test_rows_that_came_out_alike_again(tmp_path: Path) -> None:
    rows = pd.DataFrame({"row_id": ["a", "b", "c"], "prediction": ["x", "y", "z"], "probability": [0.5, 0.25, 0.75]})
    write_rows(rows, tmp_path / "then.parquet")
    rows = rows.assign(prediction=["x", "y", "w"], probability=[0.5, np.nextafter(0.25, 1), 0.75])
    write_rows(rows.iloc[::-1], tmp_path / "now.parquet")
    assert same_predictions(tmp_path / "then.parquet", tmp_path / "now.parquet") == PredictionMatch(
        rows=3, predicted=2, exact=1
    )
