"""Running `reviews.yaml` in a project folder, and looking at what its stages did."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from apf_tasks.cache.journal import PipelineRun, journal
from flows.cli.main import main
from tests.support.tiny import review_rows, write_jsonl


def write_project(folder: Path, base: Path, rows: int = 200, **sections: Any) -> None:
    """Reviews, and `reviews.yaml` with `sections` beside or instead of the usual ones."""
    write_jsonl(folder / "rows.jsonl", review_rows(rows))
    params: dict[str, Any] = {
        "family": "sentiment",
        "data": {"source": "rows.jsonl"},
        # the generated reviews are alike on purpose
        "split": {"validation_fraction": 0.2, "test_fraction": 0.2, "near_duplicate_similarity": None},
        "model": {"base": str(base), "max_tokens": 48},
        "runtime": {"precision": "fp32"},
        "test": {"resamples": 200, "before_fine_tuning": False},
    }
    (folder / "reviews.yaml").write_text(yaml.safe_dump(params | sections))


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Within the block this is the working directory, and its `mlruns` the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APF_MLRUNS", str(folder / "mlruns"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        yield


def run(**overrides: Any) -> PipelineRun:
    """The main job of `reviews.yaml` here; `train__epochs=2` overrides `train.epochs`."""
    from flows.fine_tune import fine_tune

    with journal() as done:
        fine_tune("reviews.yaml", {name.replace("__", "."): v for name, v in overrides.items()})
    return done


def apf(*command: str) -> int:
    """The `apf` command in this process; gives its exit status."""
    try:
        return main(command)
    except SystemExit as end:  # click's own way to end
        return int(end.code or 0)


def handles(done: PipelineRun, kind: type) -> list[Any]:
    """The handles of this class, in the order of the stages."""
    return [visit.handle for visit in done.stage_runs if isinstance(visit.handle, kind)]


def handle(done: PipelineRun, kind: type) -> Any:
    """The first of them."""
    return handles(done, kind)[0]


def work_in_copy(original: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a project folder, its store with it, to work in."""
    copy = folder / "project"
    shutil.copytree(original, copy)
    monkeypatch.setenv("APF_MLRUNS", str(copy / "mlruns"))
    monkeypatch.chdir(copy)
    return copy
