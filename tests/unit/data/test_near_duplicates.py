"""The join against values by hand and against comparing all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from apf_tasks.data._near_duplicates import Shingles


def test_shingles_of_three_texts_by_hand() -> None:
    shingles = Shingles(["abcdef", "abcdeg", "好片"])
    assert shingles.sizes.tolist() == [6, 6, 2]  # one per character
    # every window of the first two holds the letter that differs
    assert shingles.jaccard(np.array([0, 0, 0]), np.array([0, 1, 2])).tolist() == [1, 0, 0]
    assert Shingles(["好", "好!", "好。", "坏", "!!", "?!"]).groups(0.9).tolist() == [0, 0, 0, 1, 2, 3]
    assert Shingles([]).groups(0.8).tolist() == []


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
def test_the_join_finds_what_comparing_all_pairs_finds(similarity: float) -> None:
    random = np.random.default_rng(3)
    letters = np.array(list("abc 电影好看"))
    texts = []
    for _ in range(40):
        text = random.choice(letters, random.integers(1, 40))
        for _ in range(4):
            text[random.integers(len(text))] = random.choice(letters)
            texts.append("".join(text))
    shingles, count = Shingles(texts), len(texts)
    left, right = (side.ravel() for side in np.meshgrid(np.arange(count), np.arange(count), indexing="ij"))
    similar = (shingles.jaccard(left, right) >= similarity - 1e-9).reshape(count, count) | np.eye(count, dtype=bool)
    group = shingles.groups(similarity)
    reachable = similar.copy()
    for _ in range(10):
        reachable |= (reachable.astype(int) @ reachable.astype(int)) > 0
    assert (reachable == (group[:, None] == group)).all()
    rows = random.random(count) < 0.5
    found = shingles.nearest(similarity, rows, ~rows)
    assert ((found >= 0) == (rows & (similar & ~rows).any(axis=1))).all()
    at = np.flatnonzero(found >= 0)
    assert similar[at, found[at]].all()
