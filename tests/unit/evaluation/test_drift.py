"""The numbers of a drift report, by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from apf_tasks.evaluation._embeddings import energy_distance
from apf_tasks.evaluation.drift import _told_apart, _words, stability_index
from tests.support.tiny import review_rows


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
