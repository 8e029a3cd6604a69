"""One prediction per reference: what every metric asks first."""

from __future__ import annotations

from collections.abc import Sized

from apf_tasks.errors import DataError


def check_rows(references: Sized, predictions: Sized) -> None:
    """Raises DataError when there are not as many predictions as references."""
    if len(references) != len(predictions):
        raise DataError("score", f"{len(references):,} predictions", f"{len(predictions):,}", "Predict every row once.")
