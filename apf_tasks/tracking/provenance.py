"""What a run has to record so that it can be repeated: all its params, and per stage its data, code and environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from apf_tasks.cache import store
from apf_tasks.params.base import Frozen

if TYPE_CHECKING:
    from apf_tasks.cache.journal import StageRun

PARAMS, PROVENANCE = "params.yaml", "provenance.json"
"""Their names among the artifacts of a pipeline's MLflow run."""


class StageFacts(Frozen):
    """One stage of a run: what its result depended on, and the result's handle."""

    stage: str
    label: str
    status: str
    """`ran` or `reused`."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Dotted parameter or `content of X` -> value."""
    code: dict[str, str] = Field(default_factory=dict)
    """Module -> digest of its syntax tree."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Where it was computed, by this run or an earlier one: python, cpu, threads, library -> version."""
    handle: dict[str, Any] = Field(default_factory=dict)


class Provenance(Frozen):
    """Everything beside its params that a run depended on."""

    params_file: str
    """The file that was run, as it was called then."""
    folder: str
    """The working folder, which relative paths in the params start from."""
    stages: tuple[StageFacts, ...]


def provenance(params_file: str, stage_runs: Sequence[StageRun]) -> Provenance:
    """The facts of all stages that have a result, reused ones included."""
    return Provenance(
        params_file=params_file,
        folder=str(Path.cwd()),
        stages=tuple(_facts(v) for v in stage_runs if v.handle is not None),
    )


def _facts(stage_run: StageRun) -> StageFacts:
    assert stage_run.handle is not None
    known: dict[str, Any] = {}
    try:
        record = store.Record.model_validate_json((stage_run.handle.path / store.RECORD).read_text())
        known = record.model_dump(include={"inputs", "code", "environment"})
    except (OSError, ValidationError, UnicodeDecodeError):
        pass  # somebody deletes from the store right now; the handle is still worth its line
    handle = stage_run.handle.model_dump(mode="json", exclude={"path"})
    return StageFacts(stage=stage_run.stage, label=stage_run.label, status=stage_run.status, handle=handle, **known)
