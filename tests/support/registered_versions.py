"""Versions that older code registered, put into the registry of a test."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.tracking import tracker
from tests.support.paths import PROJECT

ARCHIVE = PROJECT / "tests" / "fixtures" / "registered-versions.tar.xz"
NAMES = ("sentiment", "word-vectors")


class Old(NamedTuple):
    """A registered version of then."""

    uri: str
    model: Path
    """The logged model, in the registry's store."""
    asked: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    """What the code logged with it answered."""


def restore(name: str, folder: Path, registered_as: str | None = None) -> Old:
    """Unpack one into `folder` and register it, as MLflow had it."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, [m for m in tar if m.name.startswith(f"flat/{name}/")], filter="data")
    unpacked = folder / "flat" / name
    expected = json.loads((unpacked / "expected.json").read_text(encoding="utf-8"))
    return Old(
        *_register(unpacked / "model", registered_as or name, folder / "registry"),
        expected["asked"],
        expected["answers"],
    )


def _register(model: Path, name: str, store: Path) -> tuple[str, Path]:
    """Through MLflow's client alone: nothing of apf takes part."""
    import mlflow

    client = tracker.client()
    experiment = client.create_experiment(f"{name} of then", artifact_location=str(store))
    run = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, name="model", source_run_id=run)
    client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{logged.model_id}", run, model_id=logged.model_id)
    return f"models:/{name}/1", Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1"))
