"""A fine-tuned model in use: loaded from its folder and what was recorded with it, asked about rows.

What is served, what `apf predict` says and what the gate compares all come from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from apf_tasks.data.rows import without_nan
from apf_tasks.errors import DataError
from apf_tasks.evaluation.predictor import Predictor, load_predictor, predict_rows
from apf_tasks.evaluation.registered.recorded_config import ServedConfig
from apf_tasks.examples import Examples, token_table
from apf_tasks.family import Prediction
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams


class FineTuned(NamedTuple):
    """A fine-tuned model with the settings of its decisions."""

    network: Predictor
    settings: Mapping[str, float]
    folder: Path
    """Hugging Face format."""

    def evaluate(self, rows: pd.DataFrame) -> list[Prediction]:
        """The prediction of every row, as the evaluation has it."""
        if not self.network.family.needs_labels:  # as a served row: the label may be one that this model does not know
            family = self.network.family
            rows = rows.drop(columns=[name for name in family.columns if name in rows and name not in family.example])
        return self._answers(rows, answering=False)

    def predict(self, given: pd.DataFrame) -> pd.DataFrame:
        """One row of `output_columns` per row, as a served model answers. Raises DataError for a column too few."""
        family = self.network.family
        if not set(family.example) <= set(given.columns):
            found = ", ".join(map(str, given.columns)) or "none"
            raise DataError("model input", "columns " + ", ".join(family.example), found, "Rename the columns.")
        rows = given[list(family.example)].fillna("").astype(str).reset_index(drop=True)
        if rows.empty:
            return pd.DataFrame(columns=list(family.output_columns))
        return without_nan(pd.DataFrame(self._answers(rows, answering=True))[list(family.output_columns)])

    def _answers(self, rows: pd.DataFrame, answering: bool) -> list[dict[str, Any]]:
        columns = self.network.family.encode(rows, self.network.base, self.network.label_names)
        examples = Examples(token_table(columns))
        return predict_rows(self.network, examples, rows, dict(self.settings), answering=answering)


def load_fine_tuned(
    folder: Path, config: ServedConfig, runtime: RuntimeParams | None = None, family: FamilyParams | None = None
) -> FineTuned:
    """The model in `folder` as its configuration says, its precision too; or with other options of its family."""
    model = ModelParams(base=str(folder), **config.model)
    here = (runtime or RuntimeParams()).model_copy(update={"precision": config.precision})
    network = load_predictor(folder, model, family or config.family, config.label_names, here)
    return FineTuned(network, config.settings, folder)
