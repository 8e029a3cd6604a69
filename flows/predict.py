"""A file scored with a registered model."""

from __future__ import annotations

from pathlib import Path

from apf_tasks.serving.predict_file import Scored, score_file
from flows.orchestration.settings import apply_defaults

apply_defaults()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402


@flow(name="predict", flow_run_name="{file}")
def predict(model: str, file: str, output: str) -> Scored:
    """Score a file with a registered model: one output row per input row, with the reason if there is no prediction.

    `model` is models:/NAME@ALIAS or models:/NAME/VERSION. An interrupted run is continued by the same call.
    """
    return score_file(model, Path(file), Path(output))
