"""A base's own label names decide which row of its head is which label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForTokenClassification

from apf_tasks.models.head_labels import describe, head_rows
from apf_tasks.models.pretrained import load_pretrained
from apf_tasks.params.model import ModelParams
from tests.support.tiny import DECODERS, ENCODERS, tiny_bert, tiny_model

TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
ORDER = [3, 0, 4, 1, 2]


def names(labels: list[str]) -> dict[str, Any]:
    return {"num_labels": len(labels), "id2label": dict(enumerate(labels))}


def load(folder: Path, labels: list[str], auto_class: str = "AutoModelForTokenClassification") -> Any:
    torch.manual_seed(1)
    return load_pretrained(folder, ModelParams(base=str(folder), max_tokens=32), auto_class, **names(labels)).eval()


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose head has its labels in another order than ours."""
    folder = tiny_bert(tmp_path_factory.mktemp("tagger"))
    config = BertConfig.from_pretrained(folder, **names([TAGS[i] for i in ORDER]))
    torch.manual_seed(0)
    BertForTokenClassification(config).save_pretrained(folder)
    head = load_file(folder / "model.safetensors")
    head["classifier.bias"] = torch.arange(5.0)  # a bias says where its row came from
    save_file(head, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_head_in_another_order_answers_with_the_same_labels(tagger: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "apf")
    model = load(tagger, TAGS)

    kept = BertForTokenClassification.from_pretrained(tagger).eval()
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    row = {name: i for i, name in kept.config.id2label.items()}
    with torch.no_grad():
        assert torch.equal(model(ids).logits, kept(ids).logits[..., [row[tag] for tag in TAGS]])
    assert model.config.id2label == dict(enumerate(TAGS))
    assert "5 of 5 labels have a row in the head of the base, taken by name" in caplog.text


def test_labels_the_base_lacks_are_drawn_new_and_the_others_kept(tagger: Path) -> None:
    model = load(tagger, ["O", "B-ORG", "I-ORG", "b-per", "I-PER", "B-LOC", "I-LOC"])

    assert model.classifier.bias.tolist() == [1, 0, 0, 0, 2, 3, 4]
    assert model.classifier.out_features == model.num_labels == model.config.num_labels == 7
    assert model.classifier.weight[1].std() > 0, "drawn, not zero"
    assert model.config.label2id["B-LOC"] == 5


def test_base_that_names_none_of_our_labels_lends_no_row(tagger: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "apf")

    assert load(tagger, ["a", "b", "c", "d", "e"]).classifier.bias.tolist() == [0, 0, 0, 0, 0]
    assert "0 of 5 labels have a row in the head of the base; drawn new: a, b, c, d, e; not used" in caplog.text


@pytest.mark.parametrize("architecture", [*ENCODERS, *DECODERS])
def test_head_of_any_architecture_follows_the_names(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model(tmp_path / "base", architecture)
    kind = "AutoModelForSequenceClassification"
    first = load(folder, ["neg", "neutral", "pos"], kind)
    first.save_pretrained(folder)

    again = load(folder, ["pos", "neg"], kind)

    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, first(ids).logits[..., [2, 0]])


@pytest.mark.parametrize(
    ("base", "ours", "rows"),
    [
        (["NEGATIVE", "POSITIVE"], ["positive", "negative"], (1, 0)),
        (["a", "A", "b"], ["A", "a", "B"], (1, 0, 2)),
        (["no", "yes"], ["0", "1"], (0, 1)),
        ([f"LABEL_{i}" for i in range(11)], ["0", "1", "10", "2"], (0, 1, 10, 2)),
        (["LABEL_0", "LABEL_1"], ["bad", "good"], (0, 1)),
        (["LABEL_0", "LABEL_1"], ["bad", "good", "so"], (None, None, None)),
        (["1 star", "2 stars"], ["1", "2"], (None, None)),
        (["entailment", "contradiction"], ["no", "yes"], (None, None)),
    ],
)
def test_rows_by_name_then_by_number_then_by_order(base: list[str], ours: list[str], rows: tuple[Any, ...]) -> None:
    assert head_rows(dict(enumerate(base)), ours) == rows


def test_line_names_what_is_called_otherwise() -> None:
    assert describe({0: "LABEL_0", 1: "LABEL_1"}, ["bad", "good"], (0, 1)) == (
        "2 of 2 labels have a row in the head of the base, whose labels are named otherwise: "
        "LABEL_0 → bad, LABEL_1 → good"
    )


def test_nothing_is_said_of_labels_that_are_ours_already() -> None:
    assert describe({0: "bad", 1: "good"}, ["bad", "good"], (0, 1)) == ""
