"""Perplexity and bits per byte by hand; n-gram models against the formula and as distributions."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.language import language_scores, language_statistics, ngram_nll, unigram_nll


def test_two_rows_by_hand() -> None:
    statistics = language_statistics(["abcd", "é"], [[4 * math.log(2), 2], [2 * math.log(2), 1]])
    assert statistics[:, 1:].tolist() == [[2, 4], [1, 2]]  # é is two bytes
    scores = language_scores(statistics.sum(axis=0))
    assert scores["perplexity"] == pytest.approx(4)  # 6 bits over 3 tokens
    assert scores["bits_per_byte"] == pytest.approx(1)  # 6 bits over 6 bytes


def test_a_uniform_model_has_the_vocabulary_as_perplexity() -> None:
    statistics = language_statistics(["x" * 10], [[10 * math.log(50), 10]])
    assert language_scores(statistics.sum(axis=0))["perplexity"] == pytest.approx(50)


def test_perfect_is_best_and_worse_is_worse() -> None:
    perfect = language_scores(np.array([0, 10, 40]))
    assert (perfect["perplexity"], perfect["bits_per_byte"]) == (1, 0)
    worse = language_scores(np.array([[5, 10, 40], [9, 10, 40]]))
    assert 1 < worse["perplexity"][0] < worse["perplexity"][1]
    assert 0 < worse["bits_per_byte"][0] < worse["bits_per_byte"][1]


def test_the_ends_of_the_scale() -> None:
    scores = language_scores(np.array([[1e6, 10, 40], [0, 0, 0]]))
    assert scores["perplexity"][0] == math.inf
    assert np.isnan(scores["perplexity"][1])
    assert np.isnan(scores["bits_per_byte"][1])
    assert language_statistics([], []).shape == (0, 3)
    with pytest.raises(DataError, match="expected 1 predictions, found 0"):
        language_statistics(["a"], [])


def test_unigram_by_hand() -> None:
    # train: token 0 three times, token 1 once: p(0) = (3 + 2 / 4) / (4 + 2), p(3) = (2 / 4) / (4 + 2)
    expected = [[-math.log(3.5 / 6) - math.log(0.5 / 6), 2]]
    assert unigram_nll([[0, 0], [0, 1]], [[0, 3]], 4, context_tokens=0) == [pytest.approx(expected[0])]
    assert unigram_nll([[0, 0], [0, 1]], [[0, 3]], 4) == [pytest.approx([-math.log(0.5 / 6), 1])]


def test_bigram_by_hand() -> None:
    # train: 0 1 | 0 1 | 0 2, so p(1) = (2 + 3 / 3) / (6 + 3) = 1/3; after 0: 1 twice, 2 once
    unigram = 1 / 3
    expected = (2 + 2 * unigram) / (3 + 2)
    assert ngram_nll([[0, 1], [0, 1], [0, 2]], [[0, 1]], 3, order=2) == [pytest.approx([-math.log(expected), 1])]
    # nothing ever follows 1, not even the next row: p(0) = (3 + 3 / 3) / (6 + 3)
    assert ngram_nll([[0, 1], [0, 1], [0, 2]], [[1, 0]], 3, order=2) == [pytest.approx([-math.log(4 / 9), 1])]


def by_recursion(train: list[list[int]], history: tuple[int, ...], token: int, size: int) -> float:
    """Witten-Bell straight from its formula."""
    shorter = by_recursion(train, history[1:], token, size) if history else 1 / size
    n = len(history)
    after = [row[i + n] for row in train for i in range(len(row) - n) if tuple(row[i : i + n]) == history]
    return (after.count(token) + len(set(after)) * shorter) / (len(after) + len(set(after))) if after else shorter


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_against_the_formula(order: int) -> None:
    random = np.random.default_rng(order)
    train = [random.integers(0, 4, random.integers(0, 8)).tolist() for _ in range(25)]
    test = [random.integers(0, 5, 6).tolist() for _ in range(10)]  # token 4 is new
    found = ngram_nll(train, test, 6, order=order)
    for row, (nll, tokens) in zip(test, found, strict=True):
        probabilities = [by_recursion(train, tuple(row[max(0, i - order + 1) : i]), row[i], 6) for i in range(1, 6)]
        assert (nll, tokens) == (pytest.approx(-sum(map(math.log, probabilities))), 5)


@pytest.mark.parametrize("history", [[], [0], [2, 1], [1, 0, 3], [5, 5, 5]])
def test_probabilities_sum_to_one(history: list[int]) -> None:
    random = np.random.default_rng(0)
    train = random.integers(0, 5, (40, 9)).tolist()
    after = ngram_nll(train, [[*history, token] for token in range(8)], 8, context_tokens=len(history))
    assert sum(math.exp(-nll) for nll, _ in after) == pytest.approx(1)


def test_context_of_each_row_and_rows_without_tokens() -> None:
    train = [[0, 1, 2, 0, 1, 2]]
    whole = ngram_nll(train, [[0, 1, 2]], 4, context_tokens=0)[0]
    parts = ngram_nll(train, [[0], [0, 1], [0, 1, 2]], 4, context_tokens=[0, 1, 2])
    assert [tokens for _, tokens in parts] == [1, 1, 1]
    assert sum(nll for nll, _ in parts) == pytest.approx(whole[0])
    assert ngram_nll(train, [[], [3]], 4) == [[0, 0], [0, 0]]
    assert ngram_nll([], [[1, 2]], 4) == [pytest.approx([math.log(4), 1])]


def test_order_helps_where_there_is_order() -> None:
    train, test = [[0, 1, 2, 3] * 50], [[0, 1, 2, 3] * 5]
    (unigram, _), (trigram, _) = unigram_nll(train, test, 4)[0], ngram_nll(train, test, 4)[0]
    assert trigram < 0.1 * unigram
    shuffled = [np.random.default_rng(0).permutation(test[0]).tolist()]
    assert ngram_nll(train, shuffled, 4)[0][0] > 2 * trigram


def test_ids_outside_the_vocabulary() -> None:
    with pytest.raises(DataError, match="expected token ids from 0 to 3, found 4"):
        ngram_nll([[1]], [[4]], 4)


def test_a_million_tokens_in_seconds() -> None:
    random = np.random.default_rng(0)
    rows = (random.zipf(1.3, (10_000, 100)) % 150_000).tolist()
    started = time.process_time()
    ngram_nll(rows, rows[:1000], 150_000)
    assert time.process_time() - started < 20
