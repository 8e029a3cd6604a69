"""The one evaluation on test: the chosen model beside baselines, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apf_tasks.artifacts import EvaluationReport, Selection, TokenizedSplit
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.evaluation.metrics.bootstrap import bootstrap, paired_bootstrap
from apf_tasks.evaluation.predictor import load_predictor, metric_scores, predict_rows, row_statistics
from apf_tasks.examples import Examples
from apf_tasks.family import BaselineInputs, Family, Prediction, get_family
from apf_tasks.inputs import EvaluationInputs
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.search import EvaluationParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.devices import seed_everything
from apf_tasks.sources.models import model_folder

BEFORE = "before_fine_tuning"


def evaluate(out: Path, given: EvaluationInputs) -> EvaluationReport:
    """Score the chosen model and the baselines on the same test rows."""
    selection, train, test, model, family, settings, runtime = given
    functions, names, metric = get_family(family), test.label_names, selection.metric
    evidence = _evidence(test)
    references = list(functions.reference(evidence.rows))
    predictions = _predict(selection.chosen.path / "model", selection, evidence, model, family, runtime, answering=True)
    counts = row_statistics(functions, references, predictions, names)
    baselines = dict(functions.baselines(_evidence(train), evidence, settings.seed))
    if settings.before_fine_tuning:
        untrained = _predict(model_folder(model), selection, evidence, model, family, runtime, answering=False)
        baselines[BEFORE] = [p["prediction"] for p in untrained]
    baseline_counts = {n: functions.statistics(references, list(p), names) for n, p in baselines.items()}
    write_rows(_table(evidence.rows, references, predictions, baselines, functions), out / "predictions.parquet")
    report: dict[str, Any] = {
        "metric": metric,
        "rows": len(references),
        "scores": metric_scores(functions, counts),
        "intervals": bootstrap(counts, functions.scores, settings.resamples, settings.seed, settings.confidence),
        "baselines": {name: metric_scores(functions, c) for name, c in baseline_counts.items()},
        "verdict": _verdict(counts, baseline_counts, functions, metric, settings),
    }
    details = functions.details(evidence.rows, predictions, names, out) if functions.details else {}
    (out / "report.json").write_text(json.dumps(report | details, indent=1, ensure_ascii=False), encoding="utf-8")
    fingerprint = fingerprint_files(out, ["report.json", "predictions.parquet"])
    return EvaluationReport(path=out, fingerprint=fingerprint, model_fingerprint=selection.chosen.fingerprint, **report)


def _evidence(split: TokenizedSplit) -> BaselineInputs:
    return BaselineInputs(read_rows(split.path / "rows.parquet"), Examples.of(split))


def _predict(
    folder: Path,
    selection: Selection,
    evidence: BaselineInputs,
    model: ModelParams,
    family: FamilyParams,
    runtime: RuntimeParams,
    answering: bool,
) -> list[Prediction]:
    """What the model in `folder` says about the rows, decided as the chosen model was on validation."""
    seed_everything(selection.chosen.train.seed)  # the base before fine-tuning gets the head it was trained from
    network = load_predictor(folder, model, family, selection.chosen.label_names, runtime)
    return predict_rows(network, evidence.examples, evidence.rows, selection.chosen.settings, answering)


def _table(
    rows: pd.DataFrame,
    references: Sequence[Any],
    predictions: Sequence[Prediction],
    baselines: Mapping[str, Sequence[Any]],
    family: Family,
) -> pd.DataFrame:
    """Input, reference, prediction and the baselines' predictions of every row, side by side."""
    shown = {c: rows[c] for c in dict.fromkeys((*family.example, *family.text_columns))}
    frame = pd.DataFrame({"row_id": rows["row_id"], **shown, "reference": pd.Series(list(references))})
    others = pd.DataFrame({f"baseline_{name}": pd.Series(list(answers)) for name, answers in baselines.items()})
    return pd.concat([frame, pd.DataFrame(list(predictions)), others], axis=1)


def _verdict(
    counts: np.ndarray, baselines: dict[str, np.ndarray], family: Family, metric: str, settings: EvaluationParams
) -> str:
    """One sentence: is the model reliably better than the best baseline on these rows?"""
    if not baselines:
        return "not compared with any baseline"
    sign = family.sign(metric)
    best = max(baselines, key=lambda name: sign * metric_scores(family, baselines[name])[metric])
    difference = paired_bootstrap(
        counts, baselines[best], family.scores, metric, settings.resamples, settings.seed, settings.confidence
    )
    if difference.better(sign):
        return f"reliably better than {best} ({difference})"
    if difference.better(-sign):
        return f"reliably worse than {best} ({difference})"
    return f"not reliably different from {best} ({difference})"
