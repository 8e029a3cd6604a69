"""A pipeline's journal -> its MLflow run. Written from handles, so a reused stage is recorded like one that ran."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from apf_tasks.artifacts import Rows, Selection, TrainedModel
from apf_tasks.cache import history
from apf_tasks.cache.journal import PipelineRun
from apf_tasks.params.file import Experiment
from apf_tasks.tracking import run_logger
from apf_tasks.word_vectors.artifacts import TrainedVectors


def record(run_id: str, params: Experiment, done: PipelineRun) -> None:
    """Datasets, candidates, scores and files of what was done; earlier trials are linked, not claimed."""
    results = {v.stage: v.handle for v in done.stage_runs if v.handle is not None}
    tags = _stage_tags(done)
    files: dict[Path, str] = {}
    datasets: dict[str, Rows] = {}
    for stage, result in [(v.stage, v.handle.records()) for v in done.stage_runs if v.handle is not None]:
        if stage != "take_rows":  # a part of train is no split of the data
            datasets |= result.datasets
        for step, metrics in result.metrics.items():
            run_logger.log_metrics(run_id, metrics, step)
        tags |= result.tags
        files |= {path: result.folder for path in result.files if path.is_file()}
        run_logger.log_tables(run_id, result.tables)
    run_logger.log_datasets(run_id, datasets, json.dumps(params.data.source))
    if isinstance(selection := results.get("select"), Selection):
        _record_search(run_id, done, selection)
    if "evaluate" in results:
        tags["apf.test_opened"] = str(done.test_opened or test_opened(datasets["test"]))
    run_logger.set_tags(run_id, tags)
    run_logger.log_files(run_id, files)


def _stage_tags(done: PipelineRun) -> dict[str, str]:
    """How each stage call ended, and the runs of reused trials."""
    tags = {f"apf.stage.{v.stage}{'.' + v.label if v.label else ''}": v.status for v in done.stage_runs}
    trained = [v.handle for v in done.stage_runs if v.status == "reused"]
    reused = [handle.run_id for handle in trained if isinstance(handle, TrainedModel | TrainedVectors)]
    if reused:
        tags["apf.reused_trial_runs"] = ", ".join(reused)
        tags["mlflow.note.content"] = "Trained earlier, reused here: " + ", ".join(f"run `{r}`" for r in reused)
    return tags


def test_opened(test: Rows) -> int:
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
        run_logger.log_files(run_id, {table: "search", picture: "search"})
    steps = sum(trial["step"] for trial in done.trials)
    run_logger.log_metrics(run_id, {"search/trials": len(done.trials), "search/optimizer_steps": steps})
