"""A folder as an MLflow model whose code is a file of this package, so that nothing is pickled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.errors import RegistryError
from apf_tasks.tracking import tracker
from apf_tasks.tracking.champion import add_challenger
from apf_tasks.tracking.registry import add_version

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of `apf_tasks`, which is logged with a model."""
NOT_REGISTERED = "It is not registered. This is a bug in how the model is packaged; please report it."


class Interface(NamedTuple):
    """What a model is asked and what it answers."""

    inputs: Mapping[str, str]
    """Column -> MLflow type."""
    outputs: Mapping[str, str]
    """Column -> MLflow type."""
    example: Mapping[str, str]
    """One row of input."""
    optional_inputs: Sequence[str] = ()
    settings: Mapping[str, int] = {}  # a NamedTuple's default is never written to
    """Whole numbers that `predict` takes as params, with their defaults."""


def log_code_model(
    folder: Path,
    run_id: str,
    code: str,
    interface: Interface,
    libraries: Sequence[str],
    config: Mapping[str, Any] | None = None,
    own_package: str | None = None,
) -> tuple[str, str]:
    """Log a folder as a pyfunc whose code is the file `code` of this package. Returns the model's URI and id.

    `config` is what the code reads when it is loaded. `own_package`, that of a family of one's own, is logged too.
    """
    tracker.client()
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    columns: list[Any] = [
        ColSpec(kind, name, required=name not in interface.optional_inputs) for name, kind in interface.inputs.items()
    ]
    answers: list[Any] = [ColSpec(kind, name) for name, kind in interface.outputs.items()]
    numbers = [ParamSpec(name, DataType.long, default) for name, default in interface.settings.items()]
    asked: Any = ParamSchema(numbers) if numbers else None
    with tracker.fluent_api(), mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PACKAGE / code),
            artifacts={"model": str(folder)},
            code_paths=[str(PACKAGE), *([str(_folder(sys.modules[own_package]))] if own_package else [])],
            model_config=dict(config) if config else None,
            signature=ModelSignature(Schema(columns), Schema(answers), asked),
            input_example=pd.DataFrame([dict(interface.example)]),
            pip_requirements=[f"{library}=={version(library).split('+')[0]}" for library in libraries],
        )
    return str(info.model_uri), str(info.model_id)


def ask_logged(uri: str, rows: pd.DataFrame, own_package: str | None = None) -> pd.DataFrame:
    """What a logged model answers when it is served: by the code logged with it. Raises RegistryError when it does not.

    A process that has imported apf would use its own modules, whatever was logged: they are put aside meanwhile. That
    takes 0.2 s; another process would import torch first, 6 s.
    """
    import mlflow

    with tracker.fluent_api(), _without_modules_of(PACKAGE.name, *([own_package] if own_package else [])):
        try:
            answers: pd.DataFrame = mlflow.pyfunc.load_model(uri).predict(rows)
        except Exception as error:  # code that was logged in part fails in every way there is
            found = f"{type(error).__name__}: {error}"
            raise RegistryError(f"replay of {uri}", "answers of the logged code", found, NOT_REGISTERED) from error
        # an editable install finds in the checkout what the logged code lacks
        loaded = [str(module.__file__) for module in _modules_of(PACKAGE.name).values()]
        if strays := [file for file in loaded if PACKAGE in Path(file).parents]:
            raise RegistryError(f"replay of {uri}", "the logged code alone", ", ".join(strays), NOT_REGISTERED)
    return answers


def register_logged(
    out: Path, name: str, run_id: str, model_id: str, tags: dict[str, str], replayed: int
) -> RegisteredModel:
    """Make a logged model, whose folder is `out`, a version: the `challenger`, and the first also the `champion`."""
    number = add_version(name, model_id, run_id, tags)
    return RegisteredModel(
        path=out,
        fingerprint=fingerprint_files(out, ["model"]),
        name=name,
        version=number,
        model_uri=f"models:/{name}/{number}",
        aliases=add_challenger(name, number),
        run_id=run_id,
        replayed_rows=replayed,
    )


@contextlib.contextmanager
def _without_modules_of(*packages: str) -> Iterator[None]:
    """No module of these packages counts as imported. At the end all do that did, and none that was imported meanwhile.

    Other threads see the same: they must not import any of it. (The outbox does not.)
    """

    ours, path, writes_none = _modules_of(*packages), list(sys.path), sys.dont_write_bytecode
    _forget(ours)
    sys.dont_write_bytecode = True  # a logged model stays as it was logged
    try:
        yield
    finally:
        _forget(_modules_of(*packages))
        sys.modules.update(ours)
        sys.path[:], sys.dont_write_bytecode = (
            path,
            writes_none,
        )  # MLflow puts the logged code first, and leaves it there


def _modules_of(*packages: str) -> dict[str, ModuleType]:
    """The modules of these packages that are imported."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}


def _forget(names: Iterable[str]) -> None:
    for name in names:
        del sys.modules[name]


def _folder(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__)))
