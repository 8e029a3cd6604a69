"""Learning-rate factors against values worked out by hand."""

from __future__ import annotations

import pytest

from apf_tasks.training.optim.schedules import lr_multiplier


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5] + [1.0] * 9),
        ("cosine", [0.5, 1.0, 1.0, 0.96194, 0.85355, 0.69134, 0.5, 0.30866, 0.14645, 0.03806]),
    ],
)
def test_ten_steps_with_a_warm_up_of_two(name: str, expected: list[float]) -> None:
    assert [lr_multiplier(name, step, 10, 0.2) for step in range(10)] == pytest.approx(expected, abs=1e-5)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert lr_multiplier("linear", 0, 4, 0.0) == 1.0
    assert lr_multiplier("linear", 3, 4, 0.0) == 0.25
