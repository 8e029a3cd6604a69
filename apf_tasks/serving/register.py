"""The chosen model as one MLflow model that serves as it was evaluated; replayed before it is registered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from apf_tasks.artifacts import EvaluationReport, RegisteredModel, Selection
from apf_tasks.data.rows import read_rows
from apf_tasks.errors import RegistryError
from apf_tasks.evaluation.registered.recorded_config import ServedConfig
from apf_tasks.family import get_family
from apf_tasks.params.family import FamilyParams, own_package
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.tracking import run_logger
from apf_tasks.tracking.models import NOT_REGISTERED, Interface, ask_logged, log_code_model, register_logged

REPLAYED_ROWS = 32
PROBABILITY_TOLERANCE = {"fp32": 1e-3, "bf16": 2e-2}
"""Rows are padded among other neighbours when they are replayed, so the last digits may differ."""
TURNED_FRACTION = {("labels", "fp32"): 0.0, ("labels", "bf16"): 0.1, ("text", "fp32"): 0.1, ("text", "bf16"): 0.5}
"""Share of replayed rows that rounding among other neighbours may decide otherwise. In written text one word turns all
that follow it."""
SERVING_LIBRARIES = (
    "mlflow",
    "torch",
    "transformers",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "psutil",
    "jieba",
    "sentencepiece",
)


def register(
    out: Path,
    selection: Selection,
    report: EvaluationReport,
    model: ModelParams,
    family: FamilyParams,
    runtime: RuntimeParams,
    name: str,
) -> RegisteredModel:
    """Log the chosen model, replay test rows through it, register it as `challenger` (the first also as `champion`).

    Raises RegistryError when it does not answer as it did in the evaluation; nothing is registered then.
    """
    folder = out / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(selection.chosen.path / "model", folder, copy_function=_link_or_copy)
    (folder / "README.md").write_text(model_card(selection, report, name), encoding="utf-8")
    run_id = run_logger.current_run(name)
    uri, model_id = _log(folder, run_id, selection, model, family, runtime)
    replayed = _replay(uri, report, family, selection.chosen.precision)
    low, high = report.intervals[report.metric]
    tags = {
        "apf.model": selection.chosen.fingerprint,
        "apf.test": report.fingerprint,
        f"test.{report.metric}": f"{report.scores[report.metric]:.4f} [{low:.4f}, {high:.4f}]",
        "apf.verdict": report.verdict,
        "apf.trial_run": selection.chosen.run_id,
    }
    return register_logged(out, name, run_id, model_id, tags, replayed)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _log(
    folder: Path,
    run_id: str,
    selection: Selection,
    model: ModelParams,
    family: FamilyParams,
    runtime: RuntimeParams,
) -> tuple[str, str]:
    """Log the folder as a pyfunc with its signature. Returns the model's URI and id."""
    functions, chosen = get_family(family), selection.chosen
    config = ServedConfig.of(model, family, runtime, chosen.label_names, chosen.settings)
    return log_code_model(
        folder,
        run_id,
        code="serving/served_model.py",
        interface=Interface(dict.fromkeys(functions.example, "string"), functions.output_columns, functions.example),
        libraries=SERVING_LIBRARIES,
        config=config.model_dump(mode="json"),
        own_package=own_package(family.name),
    )


def _replay(uri: str, report: EvaluationReport, family: FamilyParams, precision: str) -> int:
    """Compare the logged model's answers with the evaluation's on test rows. Raises RegistryError on a difference.

    Returns how many rows are alike.
    """
    functions = get_family(family)
    rows = read_rows(report.path / "predictions.parquet").head(REPLAYED_ROWS)
    answers = ask_logged(uri, rows[list(functions.example)], own_package(family.name))
    alike, tolerance = np.ones(len(rows), dtype=bool), PROBABILITY_TOLERANCE[precision]
    for column, kind in functions.output_columns.items():
        if kind == "double":  # None and NaN say the same: there is no such number
            expected, found = (side[column].astype(float) for side in (rows, answers))
            alike &= np.isclose(expected, found, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            pairs = zip(rows[column].tolist(), answers[column].tolist(), strict=True)
            alike &= [same_answer(expected, found, tolerance) for expected, found in pairs]
    turned = TURNED_FRACTION["text" if functions.generates else "labels", precision]
    if alike.sum() < (1 - turned) * len(rows):
        at = int(np.argmin(alike))
        shown = list(functions.output_columns)
        raise RegistryError(
            f"replay of {uri}, row {rows['row_id'].iloc[at]}",
            repr(rows[shown].iloc[at].to_dict()),
            repr(answers[shown].iloc[at].to_dict()),
            NOT_REGISTERED,
        )
    return int(alike.sum())


def same_answer(expected: Any, found: Any, tolerance: float) -> bool:
    """Whether two texts are the same, but for rounding of fractions where both are JSON (probabilities by label)."""
    if expected == found:
        return True
    try:
        documents = json.loads(expected), json.loads(found)
    except (TypeError, ValueError):
        return False
    return isinstance(documents[0], dict | list) and _close(*documents, tolerance)


def _close(expected: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return bool(np.isclose(expected, found, rtol=tolerance, atol=tolerance))
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(_close(v, found[k], tolerance) for k, v in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(
            _close(*pair, tolerance) for pair in zip(expected, found, strict=True)
        )
    return bool(expected == found)


def model_card(selection: Selection, report: EvaluationReport, name: str) -> str:
    """README.md of the model: what it is, how it was chosen, how good it is."""
    chosen, metric = selection.chosen, report.metric
    low, high = report.intervals[metric]
    scores = "\n".join(
        f"| {score} | {value:.4f} | {report.intervals[score][0]:.4f} to {report.intervals[score][1]:.4f} |"
        for score, value in report.scores.items()
    )
    baselines = "\n".join(f"| {n} | {s[metric]:.4f} |" for n, s in report.baselines.items())
    return f"""---
base_model: {chosen.base}
tags: [full-parameter-fine-tuning]
---
# {name}

{chosen.base}, all {chosen.parameters:,} parameters fine-tuned. Labels: {", ".join(chosen.label_names) or "none"}.

Chosen on validation among {selection.compared} candidate(s) by {metric}: {selection.tie_break}.
Tested once on {report.rows:,} rows: {metric} {report.scores[metric]:.4f} ({low:.4f} to {high:.4f}), {report.verdict}.

| score on test | value | interval |
|---|---|---|
{scores}

| baseline on the same rows | {metric} |
|---|---|
{baselines}

Trained with:

```json
{json.dumps(chosen.train.model_dump(mode="json"), indent=1)}
```
"""
