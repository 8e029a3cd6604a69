"""A journal of word vectors -> the pipeline's MLflow run. Written from handles, so reused stages are recorded alike."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

from apf_tasks.cache.journal import PipelineRun
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.tracking import client as tracker
from apf_tasks.tracking import run_logger as tracking
from apf_tasks.word_vectors.artifacts import Corpus, TrainedVectors, VectorReport
from apf_tasks.word_vectors.picture import DRAWING, PICTURE, POINTS
from apf_tasks.word_vectors.probes import ANALOGIES, NEAREST, REPORT


def record(run_id: str, params: WordVectorParams, done: PipelineRun) -> None:
    """The corpus as data set, the numbers, the tables and the map of what was done."""
    tags = {f"apf.stage.{stage_run.stage}": stage_run.status for stage_run in done.stage_runs}
    for stage_run in done.stage_runs:
        handle = stage_run.handle
        if isinstance(handle, Corpus):
            tracking.log_datasets(run_id, {"corpus": handle}, json.dumps(params.data.source))
            numbers = ("rows", "sentences", "held_out_sentences", "tokens", "distinct_words", "repeated_rows")
            tracking.log_metrics(run_id, {f"corpus/{name}": getattr(handle, name) for name in numbers})
        elif isinstance(handle, TrainedVectors):
            tracking.log_metrics(run_id, _training_metrics(handle))
            tags["apf.chosen_run"] = handle.run_id
            if stage_run.status == "reused":
                tags["mlflow.note.content"] = f"Trained earlier, reused here: run `{handle.run_id}`"
        elif isinstance(handle, VectorReport):
            tags["apf.verdict"] = handle.describe()
            tracking.log_metrics(run_id, _probe_metrics(handle))
            _log_files(run_id, handle.path)
    tracking.set_tags(run_id, tags)


def _training_metrics(trained: TrainedVectors) -> dict[str, float]:
    found = {
        "train/loss": trained.loss,
        "train/vocabulary": trained.vocabulary,
        "train/words_per_second": trained.words_per_second,
        "held_out/loss": trained.held_out_loss,
        "held_out/accuracy": trained.held_out_accuracy,
        "baseline/frequency/accuracy": trained.frequency_accuracy,
    }
    return {name: value for name, value in found.items() if value is not None}


def _probe_metrics(report: VectorReport) -> dict[str, float]:
    found: dict[str, float] = {}
    if asked := report.analogies - report.unknown_analogies:
        found["test/analogies_first"] = report.analogies_first / asked
        found["test/analogies_in_first_ten"] = report.analogies_in_first_ten / asked
    if report.similarity_correlation is not None:
        found["test/similarity_correlation"] = report.similarity_correlation
    return found


def _log_files(run_id: str, folder: Path) -> None:
    """Files as they are, and the two tables as MLflow tables, which its UI shows and compares between runs."""
    names = (REPORT, NEAREST, ANALOGIES, PICTURE, DRAWING, POINTS)
    tracking.log_files(run_id, {folder / name: "words" for name in names})
    for name in (NEAREST, ANALOGIES):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows:
            columns = {column: [row[column] for row in rows] for column in rows[0]}
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "For backward compatibility, 'str' dtypes")  # mlflow 3.17 on pandas 3
                tracker.client().log_table(run_id, columns, f"tables/{Path(name).stem}.json")
