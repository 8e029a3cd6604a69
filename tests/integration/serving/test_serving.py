"""`mlflow models serve`, started as the README says, answers what the registered model answers here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest

from apf_tasks.evaluation.registered.model import load_registered
from apf_tasks.serving.predict_file import score_file
from apf_tasks.tracking import tracker
from tests.support.paths import PROJECT
from tests.support.registered_versions import NAMES, Old, restore

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]

START_SECONDS = 1200
ASKED = {
    "sentiment": [{"text": "A warm and funny film."}, {"text": ""}, {"text": "这部电影很无聊。"}],
    "causal_lm-instructions": [{"prompt": "What does a cow say?"}, {"prompt": "Name two fruits."}],
    "word-vectors": [{"word": "cat", "other": "dog"}, {"word": "Paris", "other": None}, {"word": "zzz", "other": ""}],
}
"""One label, a written text, words."""
LOGGED = "the package is the one that was logged"


def register_all() -> None:
    """Every model of `ASKED`, trained for an epoch."""
    from flows.fine_tune import fine_tune
    from flows.word_vectors import word_vectors

    once = {"train.epochs": 1, "test.resamples": 100, "test.before_fine_tuning": False}
    fine_tune("params/smoke/sentiment.yaml", {**once, "train.learning_rate": 1e-3})
    fine_tune("params/smoke/causal_lm-instructions.yaml", {**once, "family.max_new_tokens": 8})
    word_vectors("params/smoke/word-vectors.yaml", {"vectors.epochs": 2, "probe.map_method": "pca"})


@contextlib.contextmanager
def servers(names: list[str], folder: Path) -> Iterator[dict[str, str]]:
    """Model name -> the address of its server; all start at once, away from the project, and all have ended after."""
    binaries = Path(sys.executable).parent  # as in an activated environment: MLflow starts uvicorn by its name
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "MLFLOW_TRACKING_URI": tracker.tracking_uri()}
    started: dict[str, tuple[subprocess.Popen[bytes], str]] = {}
    try:
        for name in names:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            command = ["mlflow", "models", "serve", "-m", f"models:/{name}/1", "--env-manager", "local", "-p", port]
            with (folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
                )
            started[name] = process, f"http://127.0.0.1:{port}"
        for name, (process, address) in started.items():
            wait(process, address, folder / f"{name}.log")
        yield {name: address for name, (_, address) in started.items()}
    finally:
        for process, _ in started.values():
            stop(process)


def wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/ping", timeout=60):
            return
        time.sleep(0.3)
    pytest.fail(f"no answer at {address}:\n{log.read_text()[-3000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with all its processes: the one that was started ends before those it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 15
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def ask(address: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the server answers. Its answer has to be JSON as others read it, which has no NaN."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    written, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/invocations", written, kind), timeout=600) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read(), parse_constant=refuse)["predictions"]
    return found


def answered_here(name: str, rows: pd.DataFrame, folder: Path) -> list[dict[str, Any]]:
    """What `apf predict` writes beside the rows; words are asked of the registered model itself."""
    if "word" in rows:
        found = load_registered(f"models:/{name}/1").predict(rows)
        return [{str(k): v for k, v in row.items()} for row in found.to_dict("records")]
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    rows.to_json(source, orient="records", lines=True, force_ascii=False)
    score_file(f"models:/{name}/1", source, target)
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in (*rows, "row", "error")} for row in written]


def restore_old(folder: Path) -> dict[str, Old]:
    """Versions that older code registered; their packages say so when they are imported."""
    found = {f"old-{name}": restore(name, folder, f"old-{name}") for name in NAMES}
    for old in found.values():
        with (old.model / "code" / "apf_tasks" / "__init__.py").open("a") as code:
            code.write(f"print({LOGGED!r}, flush=True)\n")
    return found


def test_a_served_model_answers_as_it_does_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    register_all()
    all_old = restore_old(tmp_path)
    with servers([*ASKED, *all_old], tmp_path) as addresses:
        for name, asked in ASKED.items():
            rows = pd.DataFrame(asked)
            here = [pytest.approx(answer, abs=1e-5) for answer in answered_here(name, rows, tmp_path)]
            table = {"columns": list(rows), "data": [list(row.values()) for row in asked]}
            assert ask(addresses[name], {"dataframe_records": asked}) == here
            assert ask(addresses[name], {"dataframe_split": table}) == here
        two = {"dataframe_records": [{"word": "cat"}], "params": {"count": 2}}
        assert len(json.loads(ask(addresses["word-vectors"], two)[0]["nearest"])) == 2
        for name, old in all_old.items():
            answers = [pytest.approx(answer, abs=1e-5) for answer in old.answers]
            assert ask(addresses[name], {"dataframe_records": old.asked}) == answers
            assert LOGGED in (tmp_path / f"{name}.log").read_text()
    for address in addresses.values():
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"{address}/ping", timeout=2)
