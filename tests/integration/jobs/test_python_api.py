"""The example of docs/PYTHON.md runs as it stands, without Prefect, within a running event loop as in a notebook."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

import apf_tasks as apf
from apf_tasks.tracking import tracker
from apf_tasks.tracking.registry import GATE_TAG
from tests.support.paths import PROJECT

PAGE = (PROJECT / "docs" / "PYTHON.md").read_text()


async def _in_a_notebook(code: str) -> dict[str, Any]:
    """Run code as a notebook's cell is run: while an event loop runs in this thread."""
    names: dict[str, Any] = {}
    exec(compile(code, "docs/PYTHON.md", "exec"), names)
    return names


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, mlruns: Path) -> None:
    monkeypatch.chdir(PROJECT)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = asyncio.run(_in_a_notebook(example))
    assert names["runs"][:2] == ["ingest", "split_rows"]
    assert names["run"].model.model_uri == "models:/sentiment/1"
    assert names["run"].report.scores["accuracy"] > 0.5
    assert names["answers"].shape[0] == 2
    assert names["longer"].model.version == 2
    assert names["compared"].picture is None
    assert not (mlruns / "prefect.db").exists()
    said = tracker.client().get_model_version("sentiment", "2").tags[GATE_TAG]
    assert "against models:/sentiment/1" in said
    assert said.startswith("passed") == ("verdict" in names)  # a refusal raises, which the example catches

    params = names["params"]
    assert {row.status for row in apf.plan(params)} == {"reused"}
    assert apf.plan(params).estimate() is None
    again = apf.run(params)
    assert {call.status for call in again.stage_runs} == {"reused"}
    assert (again.model, again.report) == (names["run"].model, names["run"].report)
    assert again.run_id != names["run"].run_id


def test_word_vectors_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    run = apf.run("params/smoke/word-vectors.yaml")
    assert run.selection is None
    assert run.report.fingerprint
    assert run.model.model_uri == "models:/word-vectors/1"


def test_a_promotion_needs_a_version() -> None:
    with pytest.raises(apf.errors.RegistryError, match="a registered model"):
        apf.promote("nothing-of-that-name")
