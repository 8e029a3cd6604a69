"""When the answer of a registered model is that of the evaluation."""

from __future__ import annotations

import json

import pytest

from apf_tasks.serving.register import same_answer

PROBABILITIES = {"acting": 0.40842926502227783, "music": 0.15713094174861908}


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ({**PROBABILITIES, "music": 0.15713092684745789}, True),  # the last bit of a float32
        ({**PROBABILITIES, "music": 0.159}, False),
        ({"acting": 0.40842926502227783}, False),
        ([0.4, 0.2], False),
    ],
)
def test_probabilities_in_json_are_compared_as_numbers(found: object, same: bool) -> None:
    assert same_answer(json.dumps(PROBABILITIES), json.dumps(found), 1e-3) is same


def test_offsets_and_texts_are_compared_as_they_are() -> None:
    assert not same_answer('[{"start": 0, "text": "Paul"}]', '[{"start": 1, "text": "Paul"}]', 1e-3)
    assert not same_answer('[{"start": 0, "text": "Paul"}]', '[{"start": 0, "text": "Pau"}]', 1e-3)
    assert not same_answer("0.5", "0.50001", 1e-3), "a generated text that is a number"
    assert same_answer("acting,music", "acting,music", 1e-3)
    assert not same_answer("acting,music", "acting", 1e-3)
