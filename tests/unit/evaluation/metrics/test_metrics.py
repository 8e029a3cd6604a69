"""Scores against values by hand and against scikit-learn; intervals against theory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import bootstrap, paired_bootstrap
from apf_tasks.evaluation.metrics.classification import classification_scores, confusion_statistics, per_label

NAMES = ["a", "b"]


def scores_of(references: list[str], predictions: list[str], names: list[str]) -> dict[str, float]:
    sums = confusion_statistics(references, predictions, names).sum(axis=0)
    return {name: float(score) for name, score in classification_scores(sums).items()}


def test_three_rows_by_hand() -> None:
    statistics = confusion_statistics(["a", "a", "b"], ["a", "b", "b"], NAMES)
    # correct a, b; predicted a, b; reference a, b
    assert statistics.tolist() == [[1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1]]
    scores = classification_scores(statistics.sum(axis=0))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["macro_precision"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["macro_recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("case", ["as it comes", "perfect", "shuffled", "label absent", "outside prediction"])
def test_equal_to_scikit_learn(case: str) -> None:
    random = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    references = random.choice(names[:3] if case == "label absent" else names, 200).tolist()
    predictions = random.choice(names[:2] if case == "label absent" else names, 200).tolist()
    if case == "perfect":
        predictions = list(references)
    if case == "shuffled":
        predictions = random.permutation(references).tolist()
    if case == "outside prediction":
        predictions[:20] = ["nothing"] * 20
    expected = precision_recall_fscore_support(references, predictions, labels=names, average="macro", zero_division=0)
    scores = scores_of(references, predictions, names)
    assert scores["accuracy"] == pytest.approx(accuracy_score(references, predictions))
    assert [scores[f"macro_{n}"] for n in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    if case == "perfect":
        assert set(scores.values()) == {1.0}


def test_leading_dimensions() -> None:
    sums = np.random.default_rng(0).integers(0, 9, (5, 4, 6))
    together = classification_scores(sums)
    assert together["macro_f1"].shape == (5, 4)
    assert together["macro_f1"][2, 3] == classification_scores(sums[2, 3])["macro_f1"]


def test_an_unknown_reference_is_said() -> None:
    with pytest.raises(DataError, match="references among a, b, found 'c'"):
        confusion_statistics(["a", "c"], ["a", "a"], NAMES)
    with pytest.raises(DataError, match="expected 2 predictions, found 1"):
        confusion_statistics(["a", "b"], ["a"], NAMES)


def test_bootstrap_interval_of_an_accuracy_is_the_binomial_one() -> None:
    references = ["a"] * 400
    predictions = ["a"] * 320 + ["b"] * 80
    statistics = confusion_statistics(references, predictions, NAMES)
    low, high = bootstrap(statistics, classification_scores, 4000, 0, 0.95)["accuracy"]
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.005)
    assert bootstrap(statistics, classification_scores, 100, 7, 0.9) == bootstrap(
        statistics, classification_scores, 100, 7, 0.9
    )
    with pytest.raises(DataError, match="at least one row"):
        bootstrap(statistics[:0], classification_scores, 100, 0, 0.95)


def test_pieces_of_the_weight_matrix_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = confusion_statistics(["a", "b"] * 50, ["a", "a"] * 50, NAMES)
    whole = bootstrap(statistics, classification_scores, 300, 0, 0.95)
    monkeypatch.setattr("apf_tasks.evaluation.metrics.bootstrap.WEIGHTS_AT_ONCE", 700)
    assert bootstrap(statistics, classification_scores, 300, 0, 0.95) == whole


def test_a_perfect_prediction_has_no_uncertainty() -> None:
    statistics = confusion_statistics(["a", "b"] * 50, ["a", "b"] * 50, NAMES)
    assert bootstrap(statistics, classification_scores, 200, 0, 0.95)["accuracy"] == (1.0, 1.0)


def test_paired_difference_uses_the_same_rows_for_both() -> None:
    references = ["a", "b"] * 100
    worse = ["b" if i < 20 else r for i, r in enumerate(references)]
    best = confusion_statistics(references, references, NAMES)
    other = confusion_statistics(references, worse, NAMES)
    same = paired_bootstrap(other, other, classification_scores, "accuracy", 500, 0, 0.95)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    gap = paired_bootstrap(best, other, classification_scores, "accuracy", 2000, 0, 0.95)
    assert gap.difference == pytest.approx(0.05)
    assert 0 < gap.low < 0.05 < gap.high
    with pytest.raises(DataError, match="expected 200 rows in both, found 1 in one"):
        paired_bootstrap(best, other[:1], classification_scores, "accuracy", 100, 0, 0.95)


def test_per_label() -> None:
    report = per_label(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    assert report["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2.0}
    assert report["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0.0}
