"""The MLflow registry: what an address means, new versions, and what is still there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apf_tasks import tracking
from apf_tasks.artifacts import RegisteredModel, Selection, TestReport
from apf_tasks.errors import RegistryError


def register_version(
    name: str, model_id: str, run_id: str, selection: Selection, report: TestReport
) -> tuple[int, tuple[str, ...]]:
    """A new version with its fingerprints and score as tags. Returns its number and aliases."""
    low, high = report.intervals[report.metric]
    tags = {
        "apf.model": selection.chosen.fingerprint,
        "apf.test": report.fingerprint,
        f"test.{report.metric}": f"{report.scores[report.metric]:.4f} [{low:.4f}, {high:.4f}]",
        "apf.verdict": report.verdict,
        "apf.trial_run": selection.chosen.run_id,
    }
    return add_version(name, model_id, run_id, tags)


def add_version(name: str, model_id: str, run_id: str, tags: dict[str, str]) -> tuple[int, tuple[str, ...]]:
    """A logged model as a new version: `challenger`, and `champion` where there is none. Returns number and aliases."""
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise RegistryError(f"registry {name}", "to create the model", str(error), "Check the name.") from error
    created = client.create_model_version(name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id)
    number = int(created.version)
    aliases = ["challenger"]
    if "champion" not in client.get_registered_model(name).aliases:
        aliases.append("champion")
    for alias in aliases:
        client.set_registered_model_alias(name, alias, str(number))
    return number, tuple(aliases)


def find_version(uri: str) -> Any:
    """The model version that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names. Raises RegistryError."""
    from mlflow.exceptions import MlflowException

    name, at, alias = uri.removeprefix("models:/").partition("@")
    try:
        if at:
            return tracking.client().get_model_version_by_alias(name, alias)
        name, _, version = name.partition("/")
        return tracking.client().get_model_version(name, version)
    except MlflowException as error:
        raise RegistryError(
            uri, "a registered model version", str(error), f"Look at `apf ui` ({tracking.tracking_uri()})."
        ) from error


def model_identity(uri: str) -> str:
    """What a registry address means now: the fingerprint of the model's weights."""
    version = find_version(uri)
    return str(version.tags.get("apf.model", f"{version.name}/{version.version}"))


def download_model(uri: str) -> Path:
    """The Hugging Face folder inside a registered model."""
    import mlflow

    version = find_version(uri)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}"))
    return folder / "artifacts" / "model"


def load_registered(uri: str) -> Any:
    """The registered model, ready to predict. Raises RegistryError."""
    find_version(uri)
    import mlflow

    return mlflow.pyfunc.load_model(uri)


def still_registered(handle: RegisteredModel) -> bool:
    """Whether the registry still has the version."""
    from mlflow.exceptions import MlflowException

    try:
        tracking.client().get_model_version(handle.name, str(handle.version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a registry that does not answer has forgotten nothing
            raise RegistryError(handle.model_uri, "an answer from the registry", str(error), "Try again.") from error
        return False
    return True
