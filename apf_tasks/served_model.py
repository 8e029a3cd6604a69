"""The model as MLflow serves it: this file is logged as code, so nothing is pickled.

MLflow runs it from top to bottom when a registered model is loaded; no other module imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext  # type: ignore[attr-defined]

from apf_tasks.batching import Examples, token_table
from apf_tasks.errors import DataError
from apf_tasks.families import family_params
from apf_tasks.network import load_network, predict_rows
from apf_tasks.params import ModelParams, RuntimeParams
from apf_tasks.rows import without_nan


class FineTunedModel(PythonModel):
    """Rows in, one prediction per row out, in their order: the same code path as the evaluation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the Hugging Face folder that lies beside this file."""
        folder, config = Path(context.artifacts["model"]), context.model_config
        family = family_params(config["family"]["name"]).model_validate(config["family"])
        model, runtime = ModelParams(base=str(folder), **config["model"]), RuntimeParams(precision=config["precision"])
        self.settings: dict[str, float] = config["settings"]
        self.network = load_network(folder, model, family, config["label_names"], runtime)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row of `output_columns` per row of input."""
        family = self.network.family
        missing = [column for column in family.example if column not in model_input.columns]
        if missing:
            found = ", ".join(map(str, model_input.columns)) or "none"
            do = "Rename the columns of the input."
            raise DataError("model input", "columns " + ", ".join(family.example), found, do)
        rows = model_input[list(family.example)].fillna("").astype(str).reset_index(drop=True)
        if rows.empty:
            return pd.DataFrame(columns=list(family.output_columns))
        columns = family.encode(rows, self.network.base, self.network.label_names)
        answers = predict_rows(self.network, Examples(token_table(columns)), rows, self.settings)
        return without_nan(pd.DataFrame(answers)[list(family.output_columns)])


mlflow.models.set_model(FineTunedModel())
