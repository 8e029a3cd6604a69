"""The targets of sentiment: one label, several, a score; pairs of texts; weights."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from apf_tasks.errors import ParamsError
from apf_tasks.families.classification.family import SentimentParams
from apf_tasks.families.classification.targets import score
from apf_tasks.family import Family, get_family


def family(**options: object) -> Family:
    return get_family(SentimentParams.model_validate({"name": "sentiment", **options}))


def test_several_labels_as_lists_or_as_one_text() -> None:
    rows = pd.DataFrame({"text": ["a", "b", "c", "d", "e"], "labels": [["x", "y", "x"], "y, x", [], None, 3]})
    checked = family(target="labels").check(rows)
    assert checked.reasons.tolist() == [
        "",
        "",
        "",
        "no labels (an empty list means none of them)",
        "labels are neither a list of texts nor a text separated by ','",
    ]
    assert checked.rows["labels"].tolist()[:3] == [["x", "y"], ["x", "y"], []]
    assert family(target="labels").labels_of(checked.rows.head(3)) == [["x", "y"], ["x", "y"], []]


def test_a_threshold_is_chosen_on_validation_and_decides() -> None:
    several = family(target="labels")
    pieces = [[{"probabilities": {"x": 0.4, "y": 0.1}}], [{"probabilities": {"x": 0.2, "y": 0.35}}]]
    rows = pd.DataFrame({"text": ["a", "b"]})
    unsure = several.merge(rows, pieces, None, {})  # type: ignore[arg-type]
    assert [p["prediction"] for p in unsure] == [[], []]
    assert several.tune is not None
    settings = several.tune([["x"], ["y"]], unsure)
    assert 0.2 < settings["threshold"] <= 0.35
    decided = several.merge(rows, pieces, None, settings)  # type: ignore[arg-type]
    assert [p["prediction"] for p in decided] == [["x"], ["y"]]
    assert [p["labels"] for p in decided] == ["x", "y"]


def test_a_score_is_learnt_as_a_share_of_its_scale() -> None:
    scored = family(target="score", score_range=[1, 5])
    checked = scored.check(
        pd.DataFrame({"text": ["a", "b", "c", "d"], "score": ["5", "6", "good", None]}, dtype=object)
    )
    assert checked.reasons.tolist() == [
        "",
        "score outside family.score_range [1, 5]",
        "score is not a number",
        "no score",
    ]
    assert checked.rows["score"][0] == 5.0
    assert scored.lower_is_better == {"mae", "mse"}
    assert scored.sign("mae") == -1
    target = score(1, 5)
    assert [target.encode(value, {}) for value in (1.0, 2.0, 5.0)] == [[0.0], [0.25], [1.0]]
    said = target.decide(torch.tensor([[-0.5], [0.25], [2.0]]), ())
    assert [found["prediction"] for found in said] == [1.0, 2.0, 5.0], "shares beyond the scale are its ends"


def test_what_does_not_go_together_is_said() -> None:
    for options, text in [
        ({"target": "score"}, "score_range"),
        ({"score_range": [0, 1]}, "require each other"),
        ({"target": "score", "score_range": [5, 1]}, "runs from 5"),
        ({"target": "labels", "class_weights": "balanced"}, "class_weights require"),
    ]:
        with pytest.raises(ValidationError, match=text):
            family(**options)


def test_class_weights() -> None:
    rows = pd.DataFrame({"label": ["a", "a", "a", "b"]})
    balanced, written = family(class_weights="balanced"), family(class_weights={"a": 1, "b": 2.5})
    assert balanced.constants is not None
    assert written.constants is not None
    assert balanced.constants(rows, ["a", "b"])["class_weights"].tolist() == pytest.approx([2 / 3, 2.0])
    assert written.constants(rows, ["a", "b"])["class_weights"].tolist() == [1.0, 2.5]
    part = balanced.constants(rows, ["a", "b", "rare"])["class_weights"].tolist()  # a label that this part lacks
    assert part == pytest.approx([4 / 9, 4 / 3, 4 / 3])
    with pytest.raises(ParamsError, match="a weight for each of a, c"):
        written.constants(rows, ["a", "c"])


def test_weights_enter_the_loss() -> None:
    from apf_tasks.families.classification.targets import one_label

    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    batch = {"labels": torch.tensor([[0], [0]]), "class_weights": torch.tensor([3.0, 1.0])}
    plain = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0]), reduction="sum")
    torch.testing.assert_close(one_label().loss(logits, batch), 3 * plain)


def test_a_pair_needs_both_texts() -> None:
    pairs = family(pairs=True)
    rows = pd.DataFrame({"text": ["a", "b"], "text_pair": ["c", None], "label": ["x", "y"]})
    assert pairs.check(rows).reasons.tolist() == ["", "empty text_pair"]
    assert set(pairs.example) == {"text", "text_pair"}
