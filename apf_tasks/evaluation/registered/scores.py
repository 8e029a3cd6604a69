"""A registered version on the test rows of today: what it says about each, how good that is, how large it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from apf_tasks.artifacts import RawData, Split, VersionScores
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.errors import RegistryError
from apf_tasks.evaluation.predictor import metric_scores, row_statistics
from apf_tasks.evaluation.registered.fine_tuned import FineTuned, load_fine_tuned
from apf_tasks.evaluation.registered.recorded_config import read_config
from apf_tasks.family import get_family
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.tracking.registry import logged_version, model_identity

TIMED_ROWS = 64
TIMED_REPEATS = 3
FILE = "predictions.parquet"


def score_version(
    out: Path, uri: str, rows_of: Split | RawData, family: FamilyParams, runtime: RuntimeParams
) -> VersionScores:
    """Score the version `uri` by the measure of `family`: on the test rows of a split, or on all that were read.

    Raises RegistryError.
    """
    whole = isinstance(rows_of, RawData)
    served, functions = load_served(uri, runtime, family if whole else None), get_family(family)
    if served.network.family.name != functions.name:
        found = f"a model for {served.network.family.name}"
        raise RegistryError(uri, f"a model for {functions.name}", found, "Give the new one another name.")
    rows = read_rows(rows_of.path / ("rows.parquet" if whole else "test.parquet"))
    names = sorted({*served.network.label_names, *(() if isinstance(rows_of, RawData) else rows_of.label_names)})
    references, predictions = list(functions.reference(rows)), served.evaluate(rows)
    shown = rows[list(dict.fromkeys((*functions.example, *functions.text_columns)))].assign(
        row_id=rows["row_id"],
        labels=pd.Series(functions.labels_of(rows)),
        reference=pd.Series(references),
        prediction=pd.Series([p["prediction"] for p in predictions]),
    )
    if "group" in rows:
        shown["group"] = rows["group"]
    write_rows(shown, out / FILE)
    return VersionScores(
        path=out,
        fingerprint=fingerprint_files(out, [FILE]),
        uri=uri,
        model_fingerprint=model_identity(uri),
        rows=len(rows),
        scores=dict(metric_scores(functions, row_statistics(functions, references, predictions, names))),
        label_names=tuple(names),
        model_bytes=sum(file.stat().st_size for file in served.folder.rglob("*") if file.is_file()),
    )


def load_served(uri: str, runtime: RuntimeParams, family: FamilyParams | None = None) -> FineTuned:
    """The version as it is served, or with other options of its family. Raises RegistryError."""
    version = logged_version(uri)
    return load_fine_tuned(version.folder, read_config(version.uri, version.config), runtime, family)


def seconds_per_row(uris: Sequence[str], split: Split, runtime: RuntimeParams) -> list[float]:
    """Of each version, in turns on the same test rows; the best of several rounds, to leave a busy moment out."""
    all_served = [load_served(uri, runtime) for uri in uris]
    rows = read_rows(split.path / "test.parquet").head(TIMED_ROWS)
    rounds: list[list[float]] = []
    for _ in range(1 + TIMED_REPEATS):
        rounds.append([])
        for served in all_served:
            started = time.perf_counter()
            served.evaluate(rows)
            rounds[-1].append((time.perf_counter() - started) / len(rows))
    return [min(times) for times in zip(*rounds[1:], strict=True)]  # the first round warms up
