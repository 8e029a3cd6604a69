"""A folder as an MLflow model whose code is a file of this package, so that nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from apf_tasks import tracker


def log_code_model(
    folder: Path,
    run_id: str,
    code: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    example: Mapping[str, str],
    libraries: Sequence[str],
    optional_inputs: Sequence[str] = (),
    settings: Mapping[str, int] | None = None,
    config: Mapping[str, Any] | None = None,
) -> tuple[str, str]:
    """Log a folder as a pyfunc whose code is the file `code` of this package. Returns the model's URI and id.

    `inputs` and `outputs` are column -> MLflow type; `settings` are whole numbers that `predict` takes as params;
    `config` is what the code reads when it is loaded.
    """
    tracker.client()
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    columns: list[Any] = [ColSpec(kind, name, required=name not in optional_inputs) for name, kind in inputs.items()]
    answers: list[Any] = [ColSpec(kind, name) for name, kind in outputs.items()]
    numbers = [ParamSpec(name, DataType.long, default) for name, default in (settings or {}).items()]
    asked: Any = ParamSchema(numbers) if numbers else None
    package = Path(__file__).parent
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / code),
            artifacts={"model": str(folder)},
            code_paths=[str(package)],
            model_config=dict(config) if config else None,
            signature=ModelSignature(Schema(columns), Schema(answers), asked),
            input_example=pd.DataFrame([dict(example)]),
            pip_requirements=[f"{library}=={version(library).split('+')[0]}" for library in libraries],
        )
    return str(info.model_uri), str(info.model_id)


def load_logged(uri: str) -> Any:
    """A logged model that is not registered, ready to predict."""
    import mlflow

    return mlflow.pyfunc.load_model(uri)
