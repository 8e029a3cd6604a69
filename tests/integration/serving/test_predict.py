"""A file scored with a registered model: a row for every row, continued after a kill, by the flow as by the command."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from apf_tasks.errors import DataError
from apf_tasks.serving import _row_chunks, predict_file
from apf_tasks.serving.onnx.export import Exported
from apf_tasks.serving.predict_file import score_file
from apf_tasks.tracking import tracker
from flows.cli.registry._output import print_exported
from tests.support.paths import PROJECT
from tests.support.projects import apf
from tests.support.tiny import review_rows

pytestmark = pytest.mark.usefixtures("prefect_server")

MODEL = "models:/sentiment/1"

KILLED = """
import os, signal, sys
from pathlib import Path
from apf_tasks.serving import _row_chunks, predict_file

write, written = predict_file._write_part, []
def write_and_die(table, part):
    write(table, part)
    written.append(part)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
predict_file._write_part = write_and_die
predict_file.score_file(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a registered model."""
    from flows.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("store") / "mlruns"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APF_MLRUNS", str(folder))
        patch.chdir(PROJECT)
        fine_tune("params/smoke/sentiment.yaml", {"train.epochs": 1, "search": {}, "test.before_fine_tuning": False})
    return folder


@pytest.fixture(autouse=True)
def in_store(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APF_MLRUNS", str(store))
    monkeypatch.chdir(tmp_path)
    tracker.client()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_row_for_every_row(tmp_path: Path, ending: str) -> None:
    lines = ['{"text": "a warm film", "id": 7}', "broken", '{"id": 8}', '{"text": "", "id": 9}', '{"text": "dull"}']
    source, target = tmp_path / "in.jsonl", tmp_path / f"out.{ending}"
    source.write_text("\n".join(lines))
    assert score_file(MODEL, source, target) == (5, 1)
    if ending == "jsonl":
        found = pd.DataFrame([json.loads(line) for line in target.read_text().splitlines()])
    elif ending == "parquet":
        found = pd.read_parquet(target)
    else:
        found = pd.read_csv(target, sep="\t" if ending == "tsv" else ",")
    assert found["row"].tolist() == [1, 2, 3, 4, 5]
    assert found["prediction"].notna().tolist() == [True, False, True, True, True]  # no text is asked about too
    assert found["error"].isna().tolist() == [True, False, True, True, True]
    assert "not valid JSON" in found["error"][1]
    assert [str(i) for i in found["id"].dropna().astype(int)] == ["7", "8", "9"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", target.name]


def test_a_kill_costs_what_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_row_chunks.chunks, "__defaults__", (100,))
    source = tmp_path / "in.csv"
    pd.DataFrame(review_rows(650)).to_csv(source, index=False)
    score_file(MODEL, source, tmp_path / "whole.csv")
    target = tmp_path / "out.csv"
    code = "from apf_tasks.serving import _row_chunks; _row_chunks.chunks.__defaults__ = (100,)\n" + KILLED
    command = [sys.executable, "-c", code, MODEL, str(source), str(target)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = tmp_path / ".out.csv.parts"
    before = {part: part.stat().st_mtime_ns for part in parts.glob("*.parquet")}
    assert len(before) == 3
    assert not target.exists()
    written: list[Path] = []
    write = predict_file._write_part
    monkeypatch.setattr(predict_file, "_write_part", lambda table, part: (written.append(part), write(table, part)))
    assert score_file(MODEL, source, target).rows == 650
    assert not set(written) & set(before)
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_of_another_file_are_not_taken(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    parts = tmp_path / ".out.csv.parts"
    parts.mkdir()
    (parts / "state.json").write_text('{"file": "another"}')
    (parts / "000000.parquet").write_text("old")
    source.write_text("text\na warm film\n")
    assert score_file(MODEL, source, target).rows == 1
    assert len(pd.read_csv(target)) == 1


def test_columns_that_do_not_fit_are_said(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("texts\nfine\n")
    with pytest.raises(DataError, match="columns text, found texts"):
        score_file(MODEL, source, target)
    source.write_text("text,error\nfine,none\n")
    with pytest.raises(DataError, match="no columns called as the predictions, found error"):
        score_file(MODEL, source, target)
    with pytest.raises(DataError, match=r"a file ending in .csv, .tsv, .jsonl, .parquet, found .xlsx"):
        score_file(MODEL, source, tmp_path / "out.xlsx")


def test_the_flow_and_the_command_do_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.predict import predict

    source = tmp_path / "in.csv"
    source.write_text("text\na warm film\na dull plot\n")
    assert predict(MODEL, str(source), str(tmp_path / "flow.csv")) == (2, 0)
    assert apf("predict", MODEL, str(source), "-o", str(tmp_path / "command.csv")) == 0
    assert "2 rows" in capsys.readouterr().out
    assert (tmp_path / "flow.csv").read_bytes() == (tmp_path / "command.csv").read_bytes()


@pytest.mark.slow
def test_an_export_answers_as_the_registered_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "apf.json").write_text("{}")
    assert apf("export", "sentiment/1", "--to", "onnx") == 1
    assert "found an older export" in capfd.readouterr().err
    assert apf("export", "sentiment@champion", "--to", "onnx", "--force", "--json") == 0
    said = capfd.readouterr()
    assert [line.split()[0] for line in said.err.splitlines()] == ["export", "replay"]
    found = json.loads(said.out)
    assert found["model"] == MODEL
    assert set(found["replay"]["inputs"]) == {"input_ids", "attention_mask", "token_type_ids"}
    assert found["replay"]["alike"] == found["replay"]["rows"] > 10
    assert found["replay"]["same_decisions"] == found["replay"]["decisions"]

    card = (tmp_path / "onnx" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("A quiet film that stays with you.", "a dull plot")
    code += "\nimport json, sys; assert 'torch' not in sys.modules; print(json.dumps(outputs['logits'].tolist()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "onnx", capture_output=True, check=True)
    [logits] = json.loads(done.stdout.splitlines()[-1])
    (tmp_path / "in.csv").write_text("text\na dull plot\n")
    score_file(MODEL, tmp_path / "in.csv", tmp_path / "out.csv")
    answer = pd.read_csv(tmp_path / "out.csv").iloc[0]
    labels = json.loads((tmp_path / "onnx" / "apf.json").read_text())["labels"]
    assert labels[logits.index(max(logits))] == answer["prediction"]
    shares = [math.exp(value) for value in logits]
    assert max(shares) / sum(shares) == pytest.approx(answer["probability"], abs=2e-2)  # registered in bf16 where it is

    print_exported(Console(), Exported.model_validate(found))  # as the command does without --json
    assert "rows answered alike" in capfd.readouterr().out
    assert apf("export", "sentiment@nobody", "--to", "other") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "onnx", "out.csv"]
