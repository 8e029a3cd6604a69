"""Every experiment in params/smoke/ runs whole: ingested, trained, chosen, tested, registered, and answering a file."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from apf_tasks.artifacts import EvaluationReport, RegisteredModel, Split
from apf_tasks.cache.journal import journal
from apf_tasks.family import get_family
from apf_tasks.params.file import load_params
from flows.cli.main import main
from tests.contract.test_families import SMOKE
from tests.support.paths import PROJECT

pytestmark = pytest.mark.usefixtures("prefect_server")


QUICK = ("ner", "sentiment", "translation")
"""One of each shape of model: an encoder over tokens, one over texts, a generator. The others are slow tests."""


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in QUICK else [pytest.mark.slow]


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code in (0, None)


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem, marks=marks_of(p.stem)) for p in SMOKE])
def test_it_runs_and_its_model_answers(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    params = load_params(path)
    family = get_family(params.family)
    with journal() as done:
        run("run", str(path))
    report = next(v.handle for v in done.stage_runs if isinstance(v.handle, EvaluationReport))
    registered = next(v.handle for v in done.stage_runs if isinstance(v.handle, RegisteredModel))
    split = next(v.handle for v in done.stage_runs if isinstance(v.handle, Split))
    assert report.metric in report.baselines["before_fine_tuning"]
    sign = family.sign(report.metric)
    assert sign * report.scores[report.metric] > sign * report.baselines["before_fine_tuning"][report.metric]
    assert registered.replayed_rows > 0
    rows = pd.read_parquet(split.path / "test.parquet")[list(family.example)].head(5)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.to_json(source, orient="records", lines=True, force_ascii=False)
    run("predict", f"{registered.model_uri}", str(source), "-o", str(target))
    answers = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(answers) == len(rows)
    promised = set(family.output_columns)
    assert not [answer for answer in answers if promised - set(answer)], f"{promised} in every answer"
    assert [a[next(iter(family.example))] for a in answers] == rows[next(iter(family.example))].tolist()
