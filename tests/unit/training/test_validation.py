"""Which validation is the best so far."""

from __future__ import annotations

import math

import pytest
import torch

from apf_tasks.errors import DivergedError
from apf_tasks.runtime.devices import use_tf32
from apf_tasks.training.train import _is_better, check_score


@pytest.mark.parametrize(
    ("score", "best", "sign", "expected"),
    [
        (0.5, None, 1, True),
        (0.5, 0.4, 1, True),
        (0.5, 0.5, 1, False),
        (0.5, 0.4, -1, False),
        (0.3, math.nan, 1, True),  # a first validation without a score does not stay the best
        (math.nan, 0.3, 1, False),
        (math.nan, 0.3, -1, False),
    ],
)
def test_the_best_so_far(score: float, best: float | None, sign: int, expected: bool) -> None:
    assert _is_better({"f1": score}, {} if best is None else {"f1": best}, "f1", sign) is expected


def test_a_training_whose_every_score_is_not_a_number_has_diverged() -> None:
    check_score({"f1": 0.0}, "f1")
    with pytest.raises(DivergedError, match="f1 not a number in every validation"):
        check_score({"f1": math.nan, "loss": 1.0}, "f1")


def test_float32_on_cuda_is_tf32_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        with caplog.at_level("INFO", "apf"):
            for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
                use_tf32(torch.device(device), dtype)
            assert torch.backends.cuda.matmul.fp32_precision == before
            for _ in range(2):
                use_tf32(torch.device("cuda"), torch.float32)
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert sum("TF32" in record.getMessage() for record in caplog.records) == 1
