"""The MLflow registry: what an address means, new versions, and what is still there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.errors import RegistryError
from apf_tasks.params.base import Frozen
from apf_tasks.tracking import tracker
from apf_tasks.tracking._downloads import fetch_once
from apf_tasks.tracking.lookup import version_is_there

APPROVAL_TAG = "apf.approval"
GATE_TAG = "apf.gate"


def add_version(name: str, model_id: str, run_id: str, tags: dict[str, str]) -> int:
    """A logged model as a new version. Returns its number. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    client = tracker.client()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise RegistryError(f"registry {name}", "to create the model", str(error), "Check the name.") from error
    return int(client.create_model_version(name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id).version)


def aliases_of(name: str) -> dict[str, int]:
    """Alias -> version of a registered model. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = tracker.client().get_registered_model(name).aliases
    except MlflowException as error:
        do = "`apf registry ls` lists the names."
        raise RegistryError(f"registry {name}", "a registered model", str(error), do) from error
    return {alias: int(version) for alias, version in aliases.items()}


class Version(Frozen):
    """A registered version as a person looks at it."""

    name: str
    number: int
    registered: datetime
    """In local time."""
    aliases: tuple[str, ...]
    run_id: str
    score: str
    """On test, with its interval, when it was registered."""
    gate: str
    """Last result of the gate; empty when it was never evaluated."""


def versions_of(name: str) -> list[Version]:
    """All versions of a model, the newest first. Raises RegistryError."""
    at, quoted = aliases_of(name), name.replace("'", "\\'")
    all_found = tracker.pages(tracker.client().search_model_versions, filter_string=f"name='{quoted}'")
    return [
        Version(
            name=name,
            number=int(found.version),
            registered=datetime.fromtimestamp(found.creation_timestamp / 1000),
            aliases=tuple(sorted(alias for alias, number in at.items() if number == int(found.version))),
            run_id=str(found.run_id or ""),
            score=", ".join(f"{key[5:]} {value}" for key, value in found.tags.items() if key.startswith("test.")),
            gate=str(found.tags.get(GATE_TAG, "")),
        )
        for found in sorted(all_found, key=lambda found: -int(found.version))
    ]


def names() -> list[str]:
    """All registered models."""
    return sorted(str(model.name) for model in tracker.pages(tracker.client().search_registered_models))


def all_versions() -> dict[str, list[Version]]:
    """Model -> its versions."""
    return {name: versions_of(name) for name in names()}


def find_version(uri: str) -> Any:
    """The model version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    name, at, alias = uri.removeprefix("models:/").partition("@")
    try:
        if at:
            return tracker.client().get_model_version_by_alias(name, alias)
        name, _, version = name.partition("/")
        return tracker.client().get_model_version(name, version)
    except MlflowException as error:
        raise RegistryError(
            uri, "a registered model version", str(error), f"See `apf ui` ({tracker.tracking_uri()})."
        ) from error


def model_identity(uri: str) -> str:
    """What a registry address means now: the fingerprint of the model's weights."""
    version = find_version(uri)
    return str(version.tags.get("apf.model", f"{version.name}/{version.version}"))


class LoggedVersion(NamedTuple):
    """A registered version as it was logged. The code that lies beside it is for processes that serve it."""

    uri: str
    """models:/NAME/VERSION"""
    run_id: str
    folder: Path
    """What was trained: a Hugging Face folder, or word vectors."""
    config: Mapping[str, Any] | None
    """What was recorded with it, for `served_config.read_config`; word vectors have none."""
    inputs: Mapping[str, bool]
    """Column -> whether it has to be there."""
    outputs: Mapping[str, str]
    """Column -> MLflow type."""


def logged_version(uri: str) -> LoggedVersion:
    """The files and the record of a version; no code of it is run. Raises RegistryError."""
    from mlflow.models import Model

    found = find_version(uri)
    folder = download_model(uri)
    model = Model.load(str(folder.parents[1]))
    if model.signature is None or not folder.is_dir():
        raise RegistryError(uri, "a model that apf registered", "another one", "`apf registry ls` lists the names.")
    return LoggedVersion(
        uri=f"models:/{found.name}/{found.version}",
        run_id=str(found.run_id or ""),
        folder=folder,
        config=model.flavors["python_function"].get("config"),
        inputs={column.name: column.required for column in model.signature.inputs},
        outputs={column.name: column.type.name for column in model.signature.outputs},
    )


def download_model(uri: str) -> Path:
    """The folder that was trained, inside a registered model. Raises RegistryError."""
    import mlflow

    found = find_version(uri)
    version = f"models:/{found.name}/{found.version}"
    location = str(tracker.client().get_model_version_download_uri(found.name, found.version))
    with tracker.fluent_api():
        if urlsplit(location).scheme in ("", "file"):
            logged = Path(mlflow.artifacts.download_artifacts(version))  # where it lies, not a copy
        else:
            fetch = functools.partial(mlflow.artifacts.download_artifacts, version)
            logged = fetch_once(location, lambda folder: fetch(dst_path=str(folder)))
    return logged / "artifacts" / "model"


def input_columns(uri: str) -> list[str]:
    """The columns that a registered model asks for."""
    import mlflow

    with tracker.fluent_api():
        signature = mlflow.models.get_model_info(uri).signature
    return [] if signature is None else [str(name) for name in signature.inputs.input_names()]


def still_registered(handle: RegisteredModel) -> bool:
    """Whether the registry still has the version, and its files where that can be seen. Raises RegistryError."""
    if (there := version_is_there(handle.name, handle.version)) is not None:
        return there
    from mlflow.exceptions import MlflowException

    try:
        tracker.client().get_model_version(handle.name, str(handle.version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a registry that does not answer has forgotten nothing
            raise RegistryError(handle.model_uri, "an answer from the registry", str(error), "Try again.") from error
        return False
    return True


REGISTRY = "models:/"
