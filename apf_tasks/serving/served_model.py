"""The model as MLflow serves it: this file is logged as code, so nothing is pickled.

MLflow runs it from top to bottom in a process that serves a version, with the package that was logged beside it;
no other module imports it. Inside apf a version is loaded by `evaluation/registered/model.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext  # type: ignore[attr-defined]

from apf_tasks.evaluation.registered.fine_tuned import load_fine_tuned
from apf_tasks.evaluation.registered.recorded_config import read_config


class FineTunedModel(PythonModel):
    """Rows in, one prediction per row out, in their order: the same code path as the evaluation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the Hugging Face folder that lies beside this file."""
        folder = context.artifacts["model"]
        self.model = load_fine_tuned(Path(folder), read_config(folder, context.model_config))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row of `output_columns` per row of input."""
        return self.model.predict(model_input)


mlflow.models.set_model(FineTunedModel())
