"""The record in MLflow: one run per pipeline, one child run per trial. Imports mlflow only when something is recorded.

The fluent API's run belongs to a thread, so everything here goes by run id.
"""

from __future__ import annotations

import csv
import json
import logging
import socket
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.artifacts import Rows
from apf_tasks.cache.history import within_experiment
from apf_tasks.context import scoped
from apf_tasks.params.base import dotted
from apf_tasks.params.file import Experiment
from apf_tasks.tracking._owner import owner_tags, still_lives
from apf_tasks.tracking.outbox import MetricPoint, Outbox, RunEnd, deliver_leftovers, now_ms
from apf_tasks.tracking.tracker import (
    client,
    experiment_id,
    find_run,
    log_points,
    new_run,
    pages,
    patiently,
    take_over,
    translated_errors,
)

logger = logging.getLogger("apf")

RUN_FILE, TOKEN_FILE = "mlflow_run_id", "mlflow_run_token"


class Pipeline(NamedTuple):
    """The experiment and the run that a pipeline records in."""

    experiment: str = "apf"
    run_id: str | None = None


_pipeline: ContextVar[Pipeline] = ContextVar("apf_pipeline", default=Pipeline())  # noqa: B039
current_pipeline = _pipeline.get


@contextmanager
def pipeline_run(params: Experiment, kind: str = "pipeline") -> Iterator[str]:
    """The parent run of one pipeline: params under their dotted names, the outcome as its status."""
    close_dead_runs(experiment_id(params.name))
    deliver_leftovers()
    run_id = new_run(params.name, f"{params.name} {kind}", owner_tags() | {"apf.kind": kind}, uuid.uuid4().hex)
    with ended(Outbox(run_id)), translated_errors(), within(Pipeline(params.name, run_id)):
        log_params(run_id, flat_params(params))
        yield run_id


@contextmanager
def ended(outbox: Outbox) -> Iterator[None]:
    """When the block ends, so does the run: as FINISHED, or with its error as FAILED or KILLED."""
    try:
        yield
    except BaseException as error:
        said = {"apf.error": f"{type(error).__name__}: {error}"[:5000]}
        outbox.close(RunEnd("FAILED" if isinstance(error, Exception) else "KILLED", now_ms(), said))
        raise
    outbox.close(RunEnd("FINISHED", now_ms(), {}))


@contextmanager
def within(pipeline: Pipeline) -> Iterator[None]:
    """Record as part of a pipeline, be it one that another process runs."""
    with scoped(_pipeline, pipeline), within_experiment(pipeline.experiment):
        yield


def current_run(name: str) -> str:
    """The pipeline's run; outside a pipeline, a finished run of its own under the experiment `name`."""
    if (run_id := _pipeline.get().run_id) is not None:
        return run_id
    run_id = str(client().create_run(experiment_id(name), tags=owner_tags()).info.run_id)
    client().set_terminated(run_id, "FINISHED")
    return run_id


def flat_params(params: Experiment) -> dict[str, Any]:
    """Dotted name -> value, as in the YAML and on the command line."""
    return dict(dotted(params.model_dump(mode="json", by_alias=True, exclude_none=True)))


def log_params(run_id: str, values: Mapping[str, Any]) -> None:
    """Params of a run; those it has already are left alone, for MLflow's params never change."""
    from mlflow.entities import Param

    tracker = client()
    known = tracker.get_run(run_id).data.params
    new = [Param(_legal(k), str(v)[:6000]) for k, v in values.items() if _legal(k) not in known]
    for start in range(0, len(new), 100):
        tracker.log_batch(run_id, params=new[start : start + 100])


def _legal(name: str) -> str:
    """MLflow takes letters, digits and _-./: and space in names."""
    return "".join(c if c.isalnum() or c in "_-./: " else "_" for c in name)


def close_dead_runs(*experiments: str) -> list[str]:
    """Runs that this machine left RUNNING when their process died become KILLED. Returns their ids."""
    tracker = client()
    mine = f"attributes.status = 'RUNNING' and tags.`apf.host` = '{socket.gethostname()}'"
    closed = []
    for run in pages(tracker.search_runs, experiment_ids=list(experiments), filter_string=mine):
        if not still_lives(run.data.tags):
            tracker.set_terminated(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_id))
    return closed


class TrialRun:
    """The child run of a trial: its points go into an outbox, and from there to the tracker."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.outbox = Outbox(run_id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Points of one step."""
        now = now_ms()
        self.outbox.add([MetricPoint(name, float(value), now, step) for name, value in metrics.items()])

    def flush(self) -> None:
        """Everything so far is on the disk."""
        self.outbox.flush()


@contextmanager
def trial_run(out: Path, label: str, params: Mapping[str, Any], resumed_from: int | None) -> Iterator[TrialRun]:
    """The child run of the trial that works under `out`; the same run again after an interruption.

    A tracker that is away is waited for. Raises RegistryError when it stays away.
    """
    parent = _pipeline.get().run_id
    tags = owner_tags() | {"apf.kind": "trial"} | ({"mlflow.parentRunId": parent} if parent else {})
    run_id = _earlier_run(out, tags | {"apf.resumed_from_step": str(resumed_from or 0)})
    if run_id is None:
        token = _written(out / TOKEN_FILE) or uuid.uuid4().hex
        (out / TOKEN_FILE).write_text(token)
        run_id = new_run(_pipeline.get().experiment, label or "train", tags, token)
        (out / RUN_FILE).write_text(run_id)
    patiently(partial(log_params, run_id, params))
    run = TrialRun(run_id)
    with ended(run.outbox):
        yield run


def _earlier_run(out: Path, tags: Mapping[str, str]) -> str | None:
    """The run of the interrupted predecessor that worked under `out`, under way again; None without one."""
    if not (known := _written(out / RUN_FILE)) or patiently(partial(find_run, known)) is None:
        return None
    patiently(partial(take_over, known, tags))
    return known


def _written(file: Path) -> str:
    """What stands in a small file; nothing where there is none."""
    return file.read_text() if file.is_file() else ""


def log_datasets(run_id: str, splits: Mapping[str, Rows], source: str) -> None:
    """The splits as MLflow datasets, with our own digests (MLflow's see the first 10,000 rows alone)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=name,
                digest=split.fingerprint,
                source_type="apf",
                source=json.dumps({"source": source}),
                profile=json.dumps({"rows": split.rows, "tokens": split.tokens}),
            ),
            [InputTag("mlflow.data.context", name)],
        )
        for name, split in splits.items()
    ]
    client().log_inputs(run_id, inputs)


def log_metrics(run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Final numbers of a run."""
    now = now_ms()
    log_points(run_id, [(_legal(name), float(value), now, step) for name, value in metrics.items()])


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Tags of a run."""
    for name, value in tags.items():
        client().set_tag(run_id, _legal(name), value[:5000])


def log_files(run_id: str, files: Mapping[Path, str]) -> None:
    """File -> folder among the run's artifacts."""
    for path, folder in files.items():
        client().log_artifact(run_id, str(path), folder)


def log_tables(run_id: str, paths: Iterable[Path]) -> None:
    """CSV files with rows as tables of the run, under their names."""
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows:
            columns = {column: [row[column] for row in rows] for column in rows[0]}
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "For backward compatibility, 'str' dtypes")  # mlflow 3.17 on pandas 3
                client().log_table(run_id, columns, f"tables/{path.stem}.json")


def log_text(run_id: str, text: str, name: str) -> None:
    """A text as a file among the run's artifacts."""
    client().log_text(run_id, text, name)
