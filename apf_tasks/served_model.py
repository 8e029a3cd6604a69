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
from apf_tasks.families import get_family
from apf_tasks.loop import Place, predict
from apf_tasks.params import ModelParams, RuntimeParams
from apf_tasks.pretrained import load_tokenizer, pad_id
from apf_tasks.runtime import choose_device, choose_precision


class FineTunedModel(PythonModel):
    """Rows in, one prediction per row out, in their order: the same code path as the evaluation."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the Hugging Face folder that lies beside this file."""
        folder, config = Path(context.artifacts["model"]), context.model_config
        self.family = get_family(config["family"]["name"])
        self.params = self.family.params.model_validate(config["family"])
        self.label_names = tuple(config["label_names"])
        self.model_params = ModelParams(base=str(folder), **config["model"])
        runtime = RuntimeParams(precision=config["precision"])
        device = choose_device(runtime)
        self.place = Place(device, choose_precision(runtime, device))
        self.tokenizer = load_tokenizer(folder, self.model_params)
        self.model = self.family.load_model(folder, self.model_params, self.params, self.label_names).to(device)  # type: ignore[arg-type]

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row of `output_columns` per row of input."""
        missing = [column for column in self.family.example if column not in model_input.columns]
        if missing:
            found = ", ".join(map(str, model_input.columns)) or "none"
            do = "Rename the columns of the input."
            raise DataError("model input", "columns " + ", ".join(self.family.example), found, do)
        rows = model_input[list(self.family.example)].fillna("").astype(str)
        if rows.empty:
            return pd.DataFrame(columns=list(self.family.output_columns))
        columns = self.family.encode(rows, self.tokenizer, self.params, self.label_names, self.model_params.max_tokens)
        examples = Examples(token_table(columns))
        answers = predict(self.model, examples, self.family, self.label_names, self.place, pad_id(self.tokenizer))
        return pd.DataFrame(answers)[list(self.family.output_columns)]


mlflow.models.set_model(FineTunedModel())
