"""Repeating a past run from what MLflow recorded of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from apf_tasks.artifacts import EvaluationReport
from apf_tasks.cache import store
from apf_tasks.cache.journal import PipelineRun, journal
from apf_tasks.cache.workspace import Workspace
from apf_tasks.errors import RegistryError
from apf_tasks.params.file import RUNS, Experiment
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.runs.rerun import RerunResult, same_predictions
from apf_tasks.tracking import registry, run_logger
from apf_tasks.tracking.past_runs import PREDICTIONS, PastRun, artifact, metrics_of
from apf_tasks.tracking.provenance import PARAMS
from apf_tasks.tracking.registry import REGISTRY
from flows.fine_tune import fine_tune
from flows.word_vectors import word_vectors


def repeat(past: PastRun, fresh: bool) -> RerunResult:
    """Run the recorded params through their flow. `fresh`: in a store and a tracker that are deleted afterwards.

    An ordinary repetition is recorded as a run of its own; a fresh one leaves a tag on the run that it repeats.
    """
    predictions = _predictions(past)
    flow = word_vectors if isinstance(past.params, WordVectorParams) else fine_tune
    with journal() as done:
        if not fresh:
            flow(f"{RUNS}{past.run_id}/{PARAMS}")
            run_logger.set_tags(done.run_id, {"apf.rerun_of": past.run_id})
            return _outcome(past, done, predictions, fresh)
        params, bases = str(artifact(past.run_id, PARAMS)), _local_bases(past.params)
        with _temporary_store():
            flow(params, bases)
            repeated = _outcome(past, done, predictions, fresh)
    said = f"{datetime.now():%Y-%m-%d %H:%M}: {'equal' if repeated.equal else 'different'}"
    run_logger.set_tags(past.run_id, {"apf.computed_again": said})
    return repeated


def _outcome(past: PastRun, done: PipelineRun, predictions: Path | None, fresh: bool) -> RerunResult:
    report = next((v.handle for v in done.stage_runs if isinstance(v.handle, EvaluationReport)), None)
    alike = None
    if predictions is not None and report is not None:
        alike = same_predictions(predictions, report.path / "predictions.parquet")
    return RerunResult(past, done, fresh, metrics_of(done.run_id), alike)


def _predictions(past: PastRun) -> Path | None:
    """The recorded test predictions; word vectors and unfinished runs have none."""
    try:
        return artifact(past.run_id, PREDICTIONS)
    except RegistryError:
        return None


def _local_bases(params: Experiment) -> dict[str, str]:
    """Where the models that the params take from the registry lie: a temporary registry does not have them."""
    if isinstance(params, WordVectorParams):
        return {}
    bases = {"model.base": params.model.base, "tokenizer.base": params.tokenizer.base or ""}
    return {name: str(registry.download_model(base)) for name, base in bases.items() if base.startswith(REGISTRY)}


@contextmanager
def _temporary_store() -> Iterator[None]:
    """Stages, runs and models go into a folder that is deleted at the end, on the disk of the usual store."""
    root = store.root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fresh-", dir=root) as folder, Workspace(Path(folder)).active():
        yield
