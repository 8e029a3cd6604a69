"""docs/METRICS.md says what the code does and names the locked versions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from apf_tasks.evaluation.metrics.answers import answer_scores
from apf_tasks.evaluation.metrics.classification import classification_scores
from apf_tasks.evaluation.metrics.entities import entity_scores
from apf_tasks.evaluation.metrics.generation import rouge_scores, translation_scores
from apf_tasks.evaluation.metrics.language import language_scores
from apf_tasks.evaluation.metrics.multilabel import multilabel_scores
from apf_tasks.evaluation.metrics.regression import regression_scores
from apf_tasks.evaluation.metrics.table import LOWER_IS_BETTER, groups, table
from apf_tasks.family import get_family
from apf_tasks.params.experiment import Params
from apf_tasks.params.family import family_names
from apf_tasks.params.file import load_experiment
from tests.support.paths import PROJECT


def test_the_page_is_as_generated() -> None:
    page = (PROJECT / "docs" / "METRICS.md").read_text()
    assert page == table(), "run: python -m apf_tasks.evaluation.metrics.table > docs/METRICS.md"


def test_the_versions_are_the_locked_ones() -> None:
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (PROJECT / "requirements.lock").read_text(), re.MULTILINE))
    packages = {group.package for group in groups()} - {""}
    assert packages == {"rouge-score", "sacrebleu", "scikit-learn", "seqeval"}
    for package in packages:
        assert f"| {locked[package]} |" in table()


@pytest.mark.parametrize(
    ("family", "note", "found"),
    [
        ("sentiment", "one label", classification_scores(np.ones(6))),
        ("sentiment", "several labels", multilabel_scores(np.ones(8))),
        ("sentiment", "a number", regression_scores(np.ones(13))),
        ("ner", "", entity_scores(np.ones(6))),
        ("question_answering", "", answer_scores(np.ones(3))),
        ("summarization", "", rouge_scores(np.ones(5))),
        ("translation", "into Chinese", translation_scores(np.ones(28))),
        ("causal_lm", "", language_scores(np.ones(3))),
    ],
)
def test_the_page_has_every_score(family: str, note: str, found: dict[str, np.ndarray]) -> None:
    named = {name for group in groups() if (group.family, group.note) == (family, note) for name in group.metrics}
    assert named == set(found)


def test_families_and_page_name_the_same_scores() -> None:
    shipped = [load_experiment(path) for path in sorted((PROJECT / "params" / "smoke").glob("*.yaml"))]
    families = [get_family(one.family) for one in shipped if isinstance(one, Params)]
    given = {(f.name, metric, f.sign(metric) < 0) for f in families for metric in f.metrics}
    named = {(g.family, metric, metric in LOWER_IS_BETTER) for g in groups() for metric in g.metrics}
    assert {name for name, *_ in given} == set(family_names())
    assert named == given
