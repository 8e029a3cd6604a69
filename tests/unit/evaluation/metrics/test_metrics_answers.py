"""Answers against values by hand, published values, and slower ways to the same number."""

from __future__ import annotations

from difflib import SequenceMatcher

import numpy as np
import pytest

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.answers import (
    ALWAYS_ANSWER,
    NEVER_ANSWER,
    Language,
    answer_scores,
    answer_statistics,
    best_threshold,
    normalize,
    tokens,
)


def scores_of(references: list[list[str]], predictions: list[str], language: Language) -> dict[str, float]:
    scores = answer_scores(answer_statistics(references, predictions, language).sum(axis=0))
    return {name: float(score) for name, score in scores.items()}


def one(references: list[str], prediction: str, language: Language) -> tuple[float, float]:
    scores = scores_of([references], [prediction], language)
    return scores["exact_match"], scores["f1"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat!", "cat"),
        ("an apple, a day", "apple day"),
        ("another", "another"),  # articles are words
        ("U.S.A.", "usa"),
        ("$3.5", "35"),
        ("the", ""),
        ("a-b", "ab"),
        ("`Needs\tA_LOT of the 'normalization'.\"‘", "needs alot of normalization‘"),  # from the tests of T5
    ],
)
def test_english_normalisation(text: str, normal: str) -> None:
    assert normalize(text, "en") == normal


@pytest.mark.parametrize(
    ("answers", "prediction", "exact", "f1"),
    [
        (["1976"], "1976", 1, 1),
        (["The Broncos"], "broncos.", 1, 1),
        # answer: cat sat on mat; prediction: cat on hat; shared: cat, on
        (["the cat sat on the mat"], "a cat on a hat", 0, 2 * 2 / (4 + 3)),
        (["to be or not to be"], "to to to", 0, 2 * 2 / (6 + 3)),  # as often as both have it
        (["rock n roll"], "rock", 0, 0.5),
        (["no", "yes sir", "yes"], "yes", 1, 1),  # the best of several
        (["this is a good span", "something irrelevant"], "this is the best span", 0, 0.75),  # from AllenNLP's tests
        (["2 時間"], "2 時間 21 分", 0, 2 / 3),
        ([], "", 1, 1),
        ([""], "", 1, 1),
        ([], "the", 1, 1),
        ([], "something", 0, 0),
        (["something"], "", 0, 0),
        (["the", "word"], "", 0, 0),  # "the" is no answer beside another
    ],
)
def test_english_answers(answers: list[str], prediction: str, exact: float, f1: float) -> None:
    assert one(answers, prediction, "en") == pytest.approx((exact, f1))


def test_values_published_for_squad_2() -> None:
    # the metric card squad_v2 of Hugging Face's evaluate
    references = [["1976"], ["Beyoncé and Bruno Mars"], ["climate change"]]
    scores = scores_of(references, ["1976", "Beyonce", "climate change"], "en")
    assert scores == {"f1": pytest.approx(2 / 3), "exact_match": pytest.approx(2 / 3)}


def test_rows_with_and_without_an_answer() -> None:
    references = [["red"], ["blue sky"], [], [""]]
    scores = scores_of(references, ["red", "sky", "", "green"], "en")
    assert scores == pytest.approx({"f1": (1 + 2 / 3 + 1 + 0) / 4, "exact_match": 2 / 4})


def test_chinese_tokens() -> None:
    assert tokens("在 2008 年，Beijing 举行。", "zh") == ["在", "2008", "年", "beijing", "举", "行"]
    assert tokens("2008-2010年", "zh") == ["20082010", "年"]  # punctuation goes before words are made
    assert tokens("New York的", "zh") == ["new", "york", "的"]
    assert tokens("《红楼梦》", "zh") == ["红", "楼", "梦"]
    assert tokens("等…", "zh") == ["等", "…"]  # listed as two characters, so never met


@pytest.mark.parametrize(
    ("answers", "prediction", "exact", "f1"),
    [
        (["北京大学"], "北京大学", 1, 1),
        (["北京大学"], "“北京大学”。", 1, 1),
        (["北京大学"], "北京", 0, 2 * 2 / (4 + 2)),
        (["北京大学"], "大北京学", 0, 2 * 2 / (4 + 4)),  # a run, not a bag and not a subsequence
        (["一二三四五"], "一二九四五", 0, 2 * 2 / (5 + 5)),
        (["天津", "北京市"], "北京", 0, 2 * 2 / (3 + 2)),
        (["2008年8月"], "2008年", 0, 2 * 2 / (4 + 2)),
        (["iPhone 手机"], "IPHONE手机", 0, 1),  # exact match keeps the space inside, F1 does not
        (["北京"], "上海", 0, 0),
        (["北京"], "", 0, 0),
        ([], "", 1, 1),
        ([], "。", 1, 1),
        ([], "北京", 0, 0),
    ],
)
def test_chinese_answers(answers: list[str], prediction: str, exact: float, f1: float) -> None:
    assert one(answers, prediction, "zh") == pytest.approx((exact, f1))


def test_the_longest_run_against_difflib() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        a, b = ("".join(random.choice(list("天地人和"), random.integers(1, 15))) for _ in range(2))
        longest = SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size
        assert one([a], b, "zh")[1] == pytest.approx(2 * longest / (len(a) + len(b)))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_perfect_is_best_and_shuffled_is_worse(language: Language) -> None:
    texts = {"en": [f"answer number {n}" for n in range(20)], "zh": [f"答案第{n}号" for n in range(20)]}[language]
    references = [[text] for text in texts]
    assert scores_of(references, texts, language) == {"f1": 1, "exact_match": 1}
    shuffled = scores_of(references, texts[1:] + texts[:1], language)
    assert shuffled["exact_match"] == 0
    assert shuffled["f1"] < 0.8


def test_sums_of_any_shape() -> None:
    statistics = answer_statistics([["a b"], [], ["c"]], ["b", "", "d"], "en")
    scores = answer_scores(np.stack([statistics, 2 * statistics]))
    assert scores["f1"].shape == (2, 3)
    assert scores["f1"].tolist() == [[1, 1, 0]] * 2


def test_threshold_by_hand() -> None:
    references = [["red"], [], ["blue"], []]
    predictions = ["red", "green", "sky", "grey"]
    # answered up to -3: 1 right of 1 and two rightly left out; up to -2 one of these is lost; blue is wrong anyway
    assert best_threshold([-3, -2, -1, 4], references, predictions, "en") == -3
    # rows of equal difference are answered together: red and green win and lose one
    assert best_threshold([-3, -3, -1, 4], references, predictions, "en") == NEVER_ANSWER
    assert best_threshold([5, 6, 1, 7], references, predictions, "en") == 5
    assert best_threshold([1.0], [["red"]], ["red"], "en") == ALWAYS_ANSWER
    assert best_threshold([1.0], [[]], ["red"], "en") == NEVER_ANSWER
    assert best_threshold([1.0, 2.0], [[], ["red"]], ["", "red"], "en") == 2.0  # "" costs nothing
    with pytest.raises(DataError, match="expected 2 predictions, found 1"):
        best_threshold([1.0], [[], []], ["", ""], "en")


@pytest.mark.parametrize("seed", range(5))
def test_threshold_against_trying_them_all(seed: int) -> None:
    random = np.random.default_rng(seed)
    words = ["red", "blue", "red blue", "green"]
    references = [[] if random.random() < 0.5 else [str(random.choice(words))] for _ in range(60)]
    predictions = random.choice(words, 60).tolist()
    differences = random.integers(-10, 10, 60).astype(float)
    found = best_threshold(differences.tolist(), references, predictions, "en")

    def f1_at(threshold: float) -> float:
        left = [p if d <= threshold else "" for p, d in zip(predictions, differences, strict=True)]
        return scores_of(references, left, "en")["f1"]

    tried = {threshold: f1_at(threshold) for threshold in [NEVER_ANSWER, *np.unique(differences).tolist()]}
    assert f1_at(found) == pytest.approx(max(tried.values()))
    assert found == min(t for t, f1 in tried.items() if f1 > max(tried.values()) - 1e-12)
