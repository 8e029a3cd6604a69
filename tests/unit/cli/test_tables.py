"""The closing tables of a run on terminals of several widths: nothing is cut, headings are whole."""

from __future__ import annotations

import re
from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console, RenderableType

from apf_tasks.cache.journal import PipelineRun
from flows.cli.runs._scores import score_tables
from flows.cli.runs._search import search_table

METRICS = ("accuracy", "macro_f1", "macro_precision", "macro_recall")
BASELINES = ("majority", "tfidf_logistic_regression", "word_vectors_logistic_regression", "before_fine_tuning")


def _printed(console: Console, tables: list[RenderableType]) -> str:
    for table in tables:
        console.print(table)
    return cast(StringIO, console.file).getvalue()


def _console(width: int) -> Console:
    return Console(width=width, file=StringIO())


@pytest.mark.parametrize("width", [80, 100, 200])
def test_test_scores_are_whole_at_any_usual_width(width: int) -> None:
    scores = dict.fromkeys(METRICS, 0.859)
    test: dict[str, Any] = {"rows": 585, "scores": scores, "intervals": dict.fromkeys(METRICS, (0.8299, 0.8866))}
    test["baselines"] = {name: dict.fromkeys(METRICS, i / 10) for i, name in enumerate(BASELINES, 1)}
    console = _console(width)
    text = _printed(console, list(score_tables(test, console)))
    assert "…" not in text, text
    assert {word for name in BASELINES for word in name.split("_")} <= set(text.split()), text
    assert max(map(len, text.splitlines())) <= width, text
    accuracy = " ".join(line for line in text.splitlines() if "accuracy" in line)
    found = re.findall(r"0\.\d{4}", accuracy.replace("0.8590", ""))
    assert found == ["0.8299", "0.8866", "0.1000", "0.2000", "0.3000", "0.4000"], text


@pytest.mark.parametrize("width", [80, 120])
def test_trials_are_whole_at_any_usual_width(width: int) -> None:
    label = "learning_rate=0.0001 batch_size=16"
    trial = {"label": label, "score": 32.1234, "step": 1171, "steps": 1171, "failure": ""}
    trials = [{**trial, "run_ids": ["1"]}, {**trial, "run_ids": ["2"], "label": f"{label} warmup_fraction=0.1"}]
    selection = {"metric": "pseudo_perplexity", "candidates": [{"run_id": "1", "interval": (31.0, 33.5)}]}
    console = _console(width)
    text = _printed(console, [search_table(cast(PipelineRun, SimpleNamespace(trials=trials)), selection, console)])
    assert "…" not in text, text
    words = [*label.split(), "pseudo_perplexity", "31.0000", "33.5000", "chosen", "trained", "end", "1171/1171"]
    assert set(words) <= set(text.split()), text
    assert {len(line) for line in text.splitlines()} == {max(map(len, text.splitlines()))}, text
