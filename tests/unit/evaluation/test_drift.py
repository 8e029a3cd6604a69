"""The numbers of a drift report, by hand."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apf_tasks.artifacts import DriftReport
from apf_tasks.data.ingestion import ingest
from apf_tasks.data.splitting import split_rows
from apf_tasks.evaluation._embeddings import energy_distance
from apf_tasks.evaluation.drift import _told_apart, _words, measure_drift, stability_index
from apf_tasks.params.data import DataParams, SplitParams
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.gate import DriftParams
from apf_tasks.params.train import RuntimeParams
from tests.support.tiny import review_rows, write_jsonl


def test_stability_index_by_hand() -> None:
    assert stability_index(np.array([3, 7]), np.array([3, 7])) == 0
    # with half a row in each bin: 10.5/21 and 10.5/21 against 15.5/21 and 5.5/21
    expected = (15.5 - 10.5) / 21 * math.log(15.5 / 10.5) + (5.5 - 10.5) / 21 * math.log(5.5 / 10.5)
    assert stability_index(np.array([10, 10]), np.array([15, 5])) == pytest.approx(expected)
    assert math.isfinite(stability_index(np.array([10, 0]), np.array([0, 10])))


def test_texts_of_one_kind_are_not_told_apart_and_of_two_kinds_are() -> None:
    films = [row["text"] for row in review_rows(240)]
    random.Random(0).shuffle(films)
    auc, _ = _told_apart(films[:120], films[120:], seed=0)
    assert auc < 0.65
    auc, p = _told_apart(films[:60], [f"parcel {i} came late and wet" for i in range(60)], seed=0)
    assert auc == pytest.approx(1)
    assert p < 1e-10


def test_words_of_both_scripts() -> None:
    assert _words(["A warm film.", "a dull film"]) == {"a": 2, "warm": 1, "film": 2, "dull": 1}
    assert _words(["我爱北京天安门"])["北京"] == 1


def test_energy_distance_by_hand_and_by_permutation() -> None:
    # |x - y|: 3, 4, 1, 2 (mean 2.5); within: 2 among the old, 1 among the new
    found, _ = energy_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [4.0]]), seed=0)
    assert found == pytest.approx((2 * 2.5 - 2 - 1) / (2 * 2.5))
    draw = np.random.default_rng(0)
    old, alike = draw.normal(size=(2, 200, 8))
    near, p = energy_distance(old, alike, seed=0)
    assert near < 0.01
    assert p > 0.05
    far, p = energy_distance(old, alike + 1, seed=0)
    assert far > 0.15
    assert p == pytest.approx(1 / 501)
    assert energy_distance(np.zeros((3, 2)), np.zeros((2, 2)), seed=0)[0] == 0


def drifted(folder: Path, then: list[dict[str, str]], now: list[dict[str, str]], **settings: Any) -> DriftReport:
    """The report on two states of one file; nothing is embedded."""
    family = FamilyParams(name="sentiment")
    splits = []
    for name, rows in (("then", then), ("now", now)):
        raw_folder, out = folder / name / "raw", folder / name / "split"
        raw_folder.mkdir(parents=True)
        out.mkdir()
        raw = ingest(raw_folder, DataParams(source=str(write_jsonl(folder / "rows.jsonl", rows))), family)
        splits.append(split_rows(out, raw, SplitParams(near_duplicate_similarity=None), family))
    (folder / "report").mkdir()
    asked = DriftParams(embedded_rows=0, **settings)
    return measure_drift(folder / "report", "models:/none/1", *splits, family, asked, RuntimeParams())


def drawn(letters: str, count: int, seed: int) -> list[dict[str, str]]:
    """Rows of a language of 5,000 words of such letters, common ones and rare ones."""
    draw = np.random.default_rng(seed)
    words = np.array(["".join(word) for word in itertools.islice(itertools.product(letters, repeat=5), 5000)])
    chance = 1 / np.arange(1, len(words) + 1)
    rows = words[draw.choice(len(words), (count, 12), p=chance / chance.sum())]
    return [{"text": " ".join(row), "label": ("good", "bad")[i % 2]} for i, row in enumerate(rows)]


@pytest.mark.xfail(strict=True, reason="the psi of words grows as rows are fewer, and its threshold stays")
@pytest.mark.parametrize("new", [50, 100])
def test_new_rows_of_the_same_source_have_not_drifted(tmp_path: Path, new: int) -> None:
    found = []
    for seed in range(5):
        (tmp_path / str(seed)).mkdir()
        rows = drawn("abcdef", 1000 + new, seed)
        found.append(drifted(tmp_path / str(seed), rows[:1000], rows).drifted)
    assert sum(map(bool, found)) <= 1, found


@pytest.mark.xfail(
    strict=True, reason="rows are told apart by file and line, so other texts on the same lines are not new"
)
def test_another_file_of_the_same_name_is_all_new_rows(tmp_path: Path) -> None:
    report = drifted(tmp_path, drawn("abcdef", 400, 0), drawn("uvwxyz", 400, 1))
    assert report.rows_new == 400
    assert report.drifted
