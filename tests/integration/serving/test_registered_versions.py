"""Versions that an older layout of the package registered: they answer with the code of today, and with their own."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import apf_tasks
from apf_tasks.errors import DataError, RegistryError
from apf_tasks.evaluation.registered.model import load_registered
from apf_tasks.serving.predict_file import score_file
from apf_tasks.tracking.models import ask_logged
from apf_tasks.word_vectors.similar import similar
from tests.support.registered_versions import NAMES, Old, restore


def alike(found: pd.DataFrame, expected: list[dict[str, Any]]) -> bool:
    answers = [{k: None if v != v else v for k, v in row.items()} for row in found.to_dict("records")]
    return answers == [pytest.approx(row, abs=1e-6) for row in expected]


def without_code(old: Old) -> None:
    """Nothing that was logged as code can be run."""
    for file in [*old.model.glob("*.py"), *old.model.glob("code/**/*.py")]:
        file.write_text("raise AssertionError('the logged code was run')\n")


@pytest.mark.parametrize("name", NAMES)
def test_code_of_today_answers_as_the_code_of_then(name: str, tmp_path: Path) -> None:
    old = restore(name, tmp_path)
    without_code(old)
    assert alike(load_registered(old.uri).predict(pd.DataFrame(old.asked)), old.answers)


def test_a_file_is_scored(tmp_path: Path) -> None:
    old = restore("sentiment", tmp_path)
    without_code(old)
    pd.DataFrame(old.asked).to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    assert score_file(old.uri, tmp_path / "in.jsonl", tmp_path / "out.parquet") == (4, 0)
    assert alike(pd.read_parquet(tmp_path / "out.parquet")[list(old.answers[0])], old.answers)
    with pytest.raises(RegistryError, match="expected word vectors, found one that takes text"):
        similar(old.uri, "cat", None, 3)


@pytest.mark.xfail(strict=True, reason="nothing is taken for an empty text, a list for its notation: both get a label")
@pytest.mark.parametrize("text", [None, math.nan, ["a", "b"]], ids=repr)
def test_a_row_whose_text_is_none_is_refused(text: object, tmp_path: Path) -> None:
    registered = load_registered(restore("sentiment", tmp_path).uri)
    with pytest.raises(DataError, match="text"):
        registered.predict(pd.DataFrame({"text": ["a brave story", text]}))


def test_words_are_asked(tmp_path: Path) -> None:
    old = restore("word-vectors", tmp_path)
    without_code(old)
    found = similar(old.uri, "cat", "dog", 3)
    assert json.loads(found["nearest"]) == json.loads(old.answers[0]["nearest"])[:3]
    assert found["similarity"] == pytest.approx(old.answers[0]["similarity"])
    with pytest.raises(DataError, match="expected a known word, found 'zzz'"):
        similar(old.uri, "zzz", None, 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_runs_the_logged_code(name: str, tmp_path: Path) -> None:
    old = restore(name, tmp_path)
    rows, before, path = pd.DataFrame(old.asked), dict(sys.modules), list(sys.path)
    assert alike(ask_logged(str(old.model), rows), old.answers)
    assert {n: m for n, m in sys.modules.items() if n.startswith("apf_tasks")} == {
        n: m for n, m in before.items() if n.startswith("apf_tasks")
    }
    assert sys.path == path
    assert not list(old.model.rglob("__pycache__"))


@pytest.mark.parametrize("missing", ["errors.py", "."])
def test_a_replay_refuses_code_that_is_not_whole(missing: str, tmp_path: Path) -> None:
    old = restore("word-vectors", tmp_path)
    (old.model / "code" / "apf_tasks" / missing).resolve().rename(tmp_path / "elsewhere")
    with pytest.raises(RegistryError, match="It is not registered"):  # though the code of today has all of it
        ask_logged(str(old.model), pd.DataFrame(old.asked))
    assert sys.modules["apf_tasks"] is apf_tasks
