"""Regression against SciPy and scikit-learn, several labels against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    hamming_loss,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    recall_score,
)
from sklearn.preprocessing import MultiLabelBinarizer

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import ScoresFunction
from apf_tasks.evaluation.metrics.multilabel import multilabel_scores, multilabel_statistics
from apf_tasks.evaluation.metrics.regression import regression_scores, regression_statistics

NAMES = ["a", "b", "c", "d"]


def regression_of(references: list[float], predictions: list[float]) -> dict[str, float]:
    scores = regression_scores(regression_statistics(references, predictions).sum(axis=0))
    return {name: float(score) for name, score in scores.items()}


def labels_of(references: list[list[str]], predictions: list[list[str]]) -> dict[str, float]:
    scores = multilabel_scores(multilabel_statistics(references, predictions, NAMES).sum(axis=0))
    return {name: float(score) for name, score in scores.items()}


def test_three_numbers_by_hand() -> None:
    # ranks 1 2 3 and 1.5 1.5 3: deviations -1 0 1 and -0.5 -0.5 1, so 1.5 / sqrt(2 * 1.5)
    scores = regression_of([1, 2, 4], [0, 0, 3])
    assert scores["spearman"] == pytest.approx(1.5 / 3**0.5)
    assert scores["mae"] == pytest.approx((1 + 2 + 1) / 3)
    assert scores["mse"] == pytest.approx((1 + 4 + 1) / 3)


@pytest.mark.parametrize("shift", [0.0, 1e6])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scipy(seed: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    references = random.normal(size=200).round(1) + shift  # with ties
    predictions = 0.5 * references + random.normal(size=200).round(1)
    assert regression_of(references.tolist(), predictions.tolist()) == pytest.approx(
        {
            "pearson": pearsonr(references, predictions).statistic,
            "spearman": spearmanr(references, predictions).statistic,
            "mae": mean_absolute_error(references, predictions),
            "mse": mean_squared_error(references, predictions),
        },
        rel=1e-9,
    )


def test_a_resample_has_the_pearson_correlation_of_its_rows() -> None:
    random = np.random.default_rng(0)
    references, predictions = random.normal(size=(2, 50))
    drawn = random.integers(0, 50, (10, 50))
    found = regression_scores(regression_statistics(references.tolist(), predictions.tolist())[drawn].sum(axis=1))
    expected = [pearsonr(references[rows], predictions[rows]).statistic for rows in drawn]
    assert found["pearson"] == pytest.approx(np.array(expected))


def test_the_ends_of_the_correlations() -> None:
    numbers = [0.1, 0.5, 0.7, 3.0]
    assert regression_of(numbers, numbers) == pytest.approx({"pearson": 1, "spearman": 1, "mae": 0, "mse": 0})
    assert regression_of(numbers, [-n for n in numbers])["pearson"] == pytest.approx(-1)
    assert regression_of(numbers, [n**3 for n in numbers])["spearman"] == pytest.approx(1)
    shuffled = regression_of(numbers, [0.7, 0.1, 3.0, 0.5])
    assert shuffled["pearson"] < 0.5
    assert shuffled["mae"] > 0.5
    for constant in (0.1, 1 / 3, 1e9 / 7):
        same = regression_of(numbers, [constant] * 4)
        assert (same["pearson"], same["spearman"]) == (0, 0)
    assert regression_of([1.0], [2.0]) == {"pearson": 0, "spearman": 0, "mae": 1, "mse": 1}


def test_a_resample_of_one_row_alone_has_no_correlation() -> None:
    statistics = regression_statistics([0.1, 0.2, 0.7], [0.3, 0.1, 0.9])
    for times in range(2, 40):  # at 9 times the first row, rounding alone would give a correlation of 1
        scores = regression_scores(times * statistics)
        assert not scores["pearson"].any()
        assert not scores["spearman"].any()
    assert regression_scores(statistics.sum(axis=0))["pearson"] > 0.8


def test_numbers_have_to_be_finite() -> None:
    with pytest.raises(DataError, match="expected predictions that are finite numbers, found nan"):
        regression_statistics([1.0, 2.0], [1.0, float("nan")])
    with pytest.raises(DataError, match="expected 2 predictions, found 1"):
        regression_statistics([1.0, 2.0], [1.0])


def test_two_sets_by_hand() -> None:
    statistics = multilabel_statistics([["a", "b"], []], [["a"], ["a"]], ["a", "b"])
    # correct a, b; predicted a, b; reference a, b; exact; one
    assert statistics.tolist() == [[1, 0, 1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0, 1]]
    scores = multilabel_scores(statistics.sum(axis=0))
    assert scores["micro_f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["hamming_loss"] == pytest.approx(2 / 4)
    assert scores["subset_accuracy"] == 0


@pytest.mark.parametrize("case", ["as it comes", "perfect", "label absent", "nothing predicted"])
def test_equal_to_scikit_learn(case: str) -> None:
    random = np.random.default_rng(0)
    names = NAMES[:3] if case == "label absent" else NAMES
    references, predictions = ([[n for n in names if random.random() < 0.4] for _ in range(100)] for _ in range(2))
    if case == "perfect":
        predictions = references
    if case == "nothing predicted":
        predictions = [[] for _ in references]
    binary = MultiLabelBinarizer(classes=NAMES)
    true, predicted = binary.fit_transform(references), binary.transform(predictions)
    scores = labels_of(references, predictions)
    assert scores == pytest.approx(
        {
            "micro_f1": f1_score(true, predicted, average="micro", zero_division=0),
            "macro_f1": f1_score(true, predicted, average="macro", zero_division=0),
            "micro_precision": precision_score(true, predicted, average="micro", zero_division=0),
            "micro_recall": recall_score(true, predicted, average="micro", zero_division=0),
            "subset_accuracy": accuracy_score(true, predicted),
            "hamming_loss": hamming_loss(true, predicted),
        }
    )
    if case == "perfect":
        shuffled = labels_of(references, references[1:] + references[:1])
        assert shuffled["micro_f1"] < scores["micro_f1"] == 1
        assert shuffled["hamming_loss"] > scores["hamming_loss"] == 0


def test_labels_outside() -> None:
    assert labels_of([["a"]], [["a", "z"]])["subset_accuracy"] == 0
    with pytest.raises(DataError, match="references among a, b, c, d, found 'z'"):
        multilabel_statistics([["z"]], [["a"]], NAMES)


@pytest.mark.parametrize(
    ("statistics", "scores"),
    [
        (regression_statistics([1, 2, 3, 5], [2, 1, 5, 4]), regression_scores),
        (multilabel_statistics([["a"], ["b"], [], ["a"]], [["a"], ["a"], ["b"], []], NAMES), multilabel_scores),
    ],
)
def test_sums_of_any_shape(statistics: np.ndarray, scores: ScoresFunction) -> None:
    weights = np.random.default_rng(0).integers(0, 3, (5, 2, len(statistics)))
    for name, values in scores(weights @ statistics).items():
        assert values.shape == (5, 2)
        assert values[3, 1] == pytest.approx(scores(weights[3, 1] @ statistics)[name])
