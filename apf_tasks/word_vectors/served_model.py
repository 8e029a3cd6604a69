"""Word vectors as MLflow serves them: this file is logged as code, so nothing is pickled.

MLflow runs it from top to bottom in a process that serves a version, with the package that was logged beside it;
no other module imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext  # type: ignore[attr-defined]

from apf_tasks.models.word_vectors import NEAREST, answer_rows, read_word_vectors


class ServedWordVectors(PythonModel):
    """Words in, their nearest words out; with a second word, the cosine of both."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the vectors that lie beside this file."""
        self.table = read_word_vectors(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per row of input: `nearest` (JSON), `similarity` with the word in `other`, and what is wrong."""
        return answer_rows(self.table, model_input, int((params or {}).get("count", NEAREST)))


mlflow.models.set_model(ServedWordVectors())
