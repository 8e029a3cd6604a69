"""Entities against hand-made rows and against seqeval (strict, IOB2)."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2, Entities

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.entities import (
    bioes_to_bio,
    entity_scores,
    entity_statistics,
    entity_types,
    error_kinds,
    per_type,
    repair_bio,
    spans,
)

Rows = list[list[str]]
TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-ORG", "I-ORG"]


def scores_of(references: Rows, predictions: Rows, names: list[str]) -> dict[str, float]:
    sums = entity_statistics(references, predictions, names).sum(axis=0)
    return {name: float(score) for name, score in entity_scores(sums).items()}


def seqeval_scores(references: Rows, predictions: Rows) -> dict[str, float]:
    found = {}
    for average in ("micro", "macro"):
        precision, recall, f1, _ = precision_recall_fscore_support(
            references, predictions, average=average, scheme=IOB2, zero_division=0
        )
        found[average] = {"precision": precision, "recall": recall, "f1": f1}
    return {**found["micro"], "macro_f1": found["macro"]["f1"]}


def random_rows(seed: int, rows: int = 60, tags: list[str] = TAGS) -> Rows:
    random = np.random.default_rng(seed)
    return [random.choice(tags, random.integers(0, 12)).tolist() for _ in range(rows)]


def with_mistakes(rows: Rows, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    return [[str(random.choice(TAGS)) if random.random() < 0.2 else tag for tag in row] for row in rows]


def test_two_rows_by_hand() -> None:
    references = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predictions = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC"]]
    statistics = entity_statistics(references, predictions, ["LOC", "PER"])
    # correct LOC, PER, other; predicted; reference
    assert statistics.tolist() == [[0, 1, 0, 0, 2, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0, 1, 0, 0]]
    scores = scores_of(references, predictions, ["LOC", "PER"])
    assert scores["precision"] == pytest.approx(1 / 3)
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx(1 / 3)
    assert scores["macro_f1"] == pytest.approx((0 + 2 / 3) / 2)


def test_the_example_that_seqeval_publishes() -> None:
    # the docstring of seqeval.metrics.v1: (0.5, 0.5, 0.5) for micro and for macro
    references = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    predictions = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    scores = scores_of(references, predictions, ["MISC", "PER"])
    assert scores == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "macro_f1": 0.5}
    table = per_type(references, predictions, ["B-MISC", "B-PER", "I-MISC", "I-PER", "O"])
    assert table["MISC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1.0, "predicted": 1.0}
    assert table["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1.0, "predicted": 1.0}


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_seqeval(seed: int) -> None:
    references = random_rows(seed)
    predictions = with_mistakes(references, seed + 100)
    assert scores_of(references, predictions, TAGS) == pytest.approx(seqeval_scores(references, predictions))
    assert scores_of(references, references, TAGS) == dict.fromkeys(("f1", "precision", "recall", "macro_f1"), 1.0)
    shuffled = [np.random.default_rng(seed).permutation(row).tolist() for row in references]
    assert scores_of(references, shuffled, TAGS)["f1"] < 0.8
    assert scores_of(references, shuffled, TAGS) == pytest.approx(seqeval_scores(references, shuffled))


def test_types_that_do_not_occur_and_types_that_train_does_not_have() -> None:
    references = [["B-LOC", "O", "B-NEW", "I-NEW"]]
    predictions = [["B-LOC", "O", "O", "O"]]
    scores = scores_of(references, predictions, ["LOC", "PER"])
    assert scores == pytest.approx(seqeval_scores(references, predictions))
    assert (scores["recall"], scores["macro_f1"]) == (0.5, 0.5)
    only_predicted = scores_of([["B-LOC", "O"]], [["B-LOC", "B-PER"]], ["LOC", "PER"])
    assert only_predicted == pytest.approx(seqeval_scores([["B-LOC", "O"]], [["B-LOC", "B-PER"]]))
    assert only_predicted["macro_f1"] == 0.5
    nothing = scores_of([["O"]], [["O"]], ["LOC"])
    assert set(nothing.values()) == {0.0}


@pytest.mark.parametrize("seed", range(3))
def test_spans_equal_those_of_seqeval(seed: int) -> None:
    for row in random_rows(seed, 100):
        assert spans(row) == [(e.start, e.end, e.tag) for e in Entities([row], IOB2).entities[0]]
    assert spans(["I-PER", "B-PER", "I-PER", "I-LOC", "B-LOC", "B-LOC"]) == [
        (1, 3, "PER"),
        (4, 5, "LOC"),
        (5, 6, "LOC"),
    ]


def is_bio(row: list[str]) -> bool:
    """Whether every tag but O lies in an entity that seqeval finds."""
    return sum(e.end - e.start for e in Entities([row], IOB2).entities[0]) == sum(tag != "O" for tag in row)


def test_repair() -> None:
    assert repair_bio(["I-PER", "I-PER", "I-LOC", "O", "I-LOC", "B-LOC", "I-LOC"]) == (
        ["B-PER", "I-PER", "B-LOC", "O", "B-LOC", "B-LOC", "I-LOC"],
        3,
    )
    assert repair_bio([]) == ([], 0)
    for row in random_rows(5):
        repaired, count = repair_bio(row)
        assert is_bio(repaired)
        assert repair_bio(repaired) == (repaired, 0)
        assert (count == 0) == is_bio(row)


def test_other_schemes() -> None:
    bio = ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC", "I-LOC"]
    assert bioes_to_bio(["B-PER", "I-PER", "E-PER", "O", "S-LOC", "B-LOC", "E-LOC"]) == bio
    assert bioes_to_bio(["B-PER", "I-PER", "L-PER", "O", "U-LOC", "B-LOC", "L-LOC"]) == bio
    assert bioes_to_bio(["B-PER", "M-PER", "E-PER", "O", "S-LOC", "B-LOC", "E-LOC"]) == bio
    assert bioes_to_bio(bio) == bio


def test_types_of_names() -> None:
    assert entity_types(TAGS) == ["LOC", "ORG", "PER"]
    assert entity_types(["PER", "LOC"]) == ["LOC", "PER"]
    assert entity_types(["GENE", "B-cell"]) == ["B-cell", "GENE"]


def test_kinds_of_errors_by_hand() -> None:
    references = [
        ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O", "B-ORG", "O"],
        ["B-PER", "I-PER", "O", "B-LOC", "O"],
    ]
    predictions = [
        ["B-PER", "I-PER", "O", "B-ORG", "I-ORG", "O", "B-ORG", "I-ORG"],
        ["O", "B-LOC", "O", "O", "B-PER"],
    ]
    assert error_kinds(references, predictions) == {
        "exact": 1,
        "wrong_type": 1,
        "wrong_boundary": 1,
        "wrong_both": 1,
        "missed": 1,
        "spurious": 1,
    }


def test_one_entity_over_two_counts_once() -> None:
    # the longer overlap is the pair, the other reference is missed
    assert error_kinds([["B-PER", "B-PER", "I-PER"]], [["B-PER", "I-PER", "I-PER"]]) == {
        **dict.fromkeys(("exact", "wrong_type", "wrong_both", "spurious"), 0),
        "wrong_boundary": 1,
        "missed": 1,
    }


@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_errors_add_up(seed: int) -> None:
    references = random_rows(seed)
    predictions = with_mistakes(references, seed)
    kinds = error_kinds(references, predictions)
    assert sum(kinds.values()) - kinds["spurious"] == sum(len(spans(row)) for row in references)
    assert sum(kinds.values()) - kinds["missed"] == sum(len(spans(row)) for row in predictions)
    assert kinds["exact"] == entity_statistics(references, predictions, TAGS)[:, :4].sum()


def test_sums_of_any_shape() -> None:
    statistics = entity_statistics(random_rows(0), with_mistakes(random_rows(0), 1), TAGS)
    weights = np.random.default_rng(0).integers(0, 3, (5, 2, len(statistics)))
    scores = entity_scores(weights @ statistics)
    assert scores["macro_f1"].shape == (5, 2)
    assert scores["f1"][3, 1] == entity_scores(weights[3, 1] @ statistics)["f1"]


def test_a_tag_for_every_word() -> None:
    with pytest.raises(DataError, match="expected 2 tags for row 1, found 1"):
        entity_statistics([["O", "O"]], [["O"]], TAGS)
    with pytest.raises(DataError, match="expected 1 predictions, found 2"):
        entity_statistics([["O"]], [["O"], ["O"]], TAGS)
