"""The one evaluation on test: the chosen model beside baselines that cost nothing, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apf_tasks.artifacts import Selection, TestReport, TokenizedSplit
from apf_tasks.batching import Examples
from apf_tasks.families import Family, get_family
from apf_tasks.loop import Place, predict
from apf_tasks.metrics import bootstrap, paired_bootstrap, per_label
from apf_tasks.params import FamilyParams, ModelParams, RuntimeParams, TestParams
from apf_tasks.pretrained import load_tokenizer, pad_id
from apf_tasks.runtime import choose_device, choose_precision
from apf_tasks.store import fingerprint_files


def evaluate(
    out: Path,
    selection: Selection,
    train: TokenizedSplit,
    test: TokenizedSplit,
    model: ModelParams,
    family: FamilyParams,
    settings: TestParams,
    runtime: RuntimeParams,
) -> TestReport:
    """Score the chosen model and the baselines on the same test rows."""
    functions, names = get_family(family.name), test.label_names
    rows = pd.read_parquet(test.path / "rows.parquet")
    references = list(functions.reference(rows))
    predictions = _predict(selection, test, model, family, runtime)
    counts = functions.statistics(references, [p["prediction"] for p in predictions], names)
    scores = _scores(counts, functions)
    intervals = bootstrap(counts, functions.scores, settings.resamples, settings.seed, settings.confidence)
    baseline_rows = functions.baselines(pd.read_parquet(train.path / "rows.parquet"), rows, settings.seed)
    baseline_counts = {n: functions.statistics(references, list(p), names) for n, p in baseline_rows.items()}
    frame = pd.DataFrame(
        {"row_id": rows["row_id"], **{c: rows[c] for c in functions.text_columns}, "reference": references}
    )
    frame = pd.concat([frame, pd.DataFrame(predictions)], axis=1).assign(
        **{f"baseline_{n}": p for n, p in baseline_rows.items()}
    )
    frame.to_parquet(out / "predictions.parquet", index=False)
    labels = per_label(references, [p["prediction"] for p in predictions], names) if names else {}
    if names:
        _draw_confusion(references, [p["prediction"] for p in predictions], names, out / "confusion.png")
    report: dict[str, Any] = {
        "metric": selection.metric,
        "rows": len(rows),
        "scores": scores,
        "intervals": intervals,
        "baselines": {name: _scores(c, functions) for name, c in baseline_counts.items()},
        "verdict": _verdict(counts, baseline_counts, functions, selection.metric, settings),
    }
    (out / "report.json").write_text(json.dumps(report | {"per_label": labels}, indent=1))
    fingerprint = fingerprint_files(out, ["report.json", "predictions.parquet"])
    return TestReport(path=out, fingerprint=fingerprint, model_fingerprint=selection.chosen.fingerprint, **report)


def _predict(
    selection: Selection, test: TokenizedSplit, model: ModelParams, family: FamilyParams, runtime: RuntimeParams
) -> list[dict[str, Any]]:
    functions = get_family(family.name)
    device = choose_device(runtime)
    folder = selection.chosen.path / "model"
    network = functions.load_model(folder, model, family, test.label_names).to(device)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(folder, model)
    place = Place(device, choose_precision(runtime, device))
    return predict(network, Examples.of(test), functions, test.label_names, place, pad_id(tokenizer))


def _scores(counts: np.ndarray, family: Family) -> dict[str, float]:
    return {name: float(score) for name, score in family.scores(counts.sum(axis=0)).items()}


def _verdict(
    counts: np.ndarray, baselines: dict[str, np.ndarray], family: Family, metric: str, settings: TestParams
) -> str:
    """One sentence: is the model reliably better than the best baseline on these rows?"""
    best = max(baselines, key=lambda name: _scores(baselines[name], family)[metric])
    difference = paired_bootstrap(
        counts, baselines[best], family.scores, metric, settings.resamples, settings.seed, settings.confidence
    )
    if difference.low > 0:
        return f"reliably better than {best} ({difference})"
    if difference.high < 0:
        return f"reliably worse than {best} ({difference})"
    return f"not reliably different from {best} ({difference})"


def _draw_confusion(references: list[Any], predictions: list[Any], names: tuple[str, ...], path: Path) -> None:
    from matplotlib.figure import Figure
    from sklearn.metrics import ConfusionMatrixDisplay

    side = max(4.0, 0.5 * len(names) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        references, predictions, labels=list(names), normalize="true", values_format=".2f", ax=axes,
        colorbar=False, cmap="Blues", xticks_rotation="vertical" if len(names) > 4 else "horizontal",
    )  # fmt: skip
    axes.set_title("share of each reference label")
    figure.savefig(path, dpi=110)
