"""A pipeline's journal -> its MLflow run. Written from handles, so a reused stage is recorded like one that ran."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from apf_tasks.artifacts import (
    DriftReport,
    EvaluationReport,
    LearningCurve,
    Selection,
    Split,
    TokenizedSplit,
    TrainedModel,
)
from apf_tasks.cache import history
from apf_tasks.cache.journal import PipelineRun
from apf_tasks.params.experiment import Params
from apf_tasks.tracking import run_logger as tracking


def record(run_id: str, params: Params, done: PipelineRun) -> None:
    """Datasets, candidates, scores and files of what was done; earlier trials are linked, not claimed."""
    stage_runs = done.stage_runs
    handles = [stage_run.handle for stage_run in stage_runs if stage_run.handle is not None]
    tokenized = [v.handle for v in stage_runs if v.stage == "tokenize"]  # a part of train is no split of the data
    splits: dict[str, TokenizedSplit] = {h.name: h for h in tokenized if isinstance(h, TokenizedSplit)}
    tracking.log_datasets(run_id, splits, json.dumps(params.data.source))
    tags = {f"apf.stage.{v.stage}{'.' + v.label if v.label else ''}": v.status for v in stage_runs}
    reused = [v.handle.run_id for v in stage_runs if isinstance(v.handle, TrainedModel) and v.status == "reused"]
    if reused:
        tags["apf.reused_trial_runs"] = ", ".join(reused)
        tags["mlflow.note.content"] = "Trained earlier, reused here: " + ", ".join(f"run `{r}`" for r in reused)
    files: dict[Path, str] = {}
    for handle in handles:
        if isinstance(handle, Split):
            files[handle.path / "leaks.json"] = "split"
        elif isinstance(handle, Selection):
            files[handle.path / "candidates.json"] = "selection"
            best = handle.candidates[0]
            tracking.log_metrics(run_id, {f"validation/{handle.metric}": best.score})
            tags |= {"apf.selection": handle.tie_break, "apf.chosen_run": handle.chosen.run_id}
            _record_search(run_id, done, handle)
        elif isinstance(handle, EvaluationReport):
            files |= dict.fromkeys([handle.path / "report.json", handle.path / "predictions.parquet"], "test")
            files |= dict.fromkeys(sorted([*handle.path.glob("*.png"), *handle.path.glob("*.md")]), "test")
            tracking.log_metrics(run_id, _test_metrics(handle))
            tags["apf.verdict"] = handle.verdict
            tags["apf.test_opened"] = str(done.test_opened or test_opened(splits["test"]))
        elif isinstance(handle, DriftReport):
            files[handle.path / "drift.json"] = "drift"
            tracking.log_metrics(run_id, _drift_metrics(handle))
            tags["apf.drift"] = handle.describe()
        elif isinstance(handle, LearningCurve):
            files |= dict.fromkeys([handle.path / "curve.json", handle.path / "curve.png"], "curve")
            for rows, score in zip(handle.rows, handle.scores, strict=True):
                tracking.log_metrics(run_id, {f"validation/{handle.metric}": score}, step=rows)
            tags["apf.verdict"] = handle.verdict
    tracking.set_tags(run_id, tags)
    tracking.log_files(run_id, {path: folder for path, folder in files.items() if path.is_file()})


def test_opened(test: TokenizedSplit) -> int:
    """How many models were tested on the same test rows: each use makes the next score a little less reliable."""
    return history.count("evaluate", "content of test", test.fingerprint)


def _record_search(run_id: str, done: PipelineRun, selection: Selection) -> None:
    """The trials of a search as a table and a picture."""
    if len(done.trials) < 2:
        return
    from apf_tasks.search.report import PICTURE, TABLE, draw_search, write_table

    with tempfile.TemporaryDirectory() as folder:
        table, picture = Path(folder, TABLE), Path(folder, PICTURE)
        write_table(done.trials, selection.chosen.run_id, table)
        draw_search(done.trials, selection.chosen.run_id, selection.metric, picture)
        tracking.log_files(run_id, {table: "search", picture: "search"})
    steps = sum(trial["step"] for trial in done.trials)
    tracking.log_metrics(run_id, {"search/trials": len(done.trials), "search/optimizer_steps": steps})


def _drift_metrics(report: DriftReport) -> dict[str, float]:
    found = {"auc": report.auc, "embeddings": report.embeddings, "unknown_words": report.unknown_words}
    found |= {f"psi_{name}": value for name, value in report.psi.items()}
    return {f"drift/{name}": value for name, value in found.items() if value is not None}


def _test_metrics(report: EvaluationReport) -> dict[str, float]:
    metrics = {f"test/{name}": score for name, score in report.scores.items()}
    for name, (low, high) in report.intervals.items():
        metrics |= {f"test/{name}_low": low, f"test/{name}_high": high}
    for baseline, scores in report.baselines.items():
        metrics |= {f"baseline/{baseline}/{name}": score for name, score in scores.items()}
    return metrics
