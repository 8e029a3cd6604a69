"""The commands of the README do what it says, here on a tiny model in place of the demo's."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from flows.cli.main import main
from tests.support.paths import PROJECT
from tests.support.tiny import review_rows, tiny_bert, write_jsonl

ELSEWHERE = ("init", "similar", "ui", "up")
"""Commands that other tests run."""
README = (PROJECT / "README.md").read_text()


def commands() -> list[list[str]]:
    """The `apf` commands in the README's bash blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "apf"]


def test_the_readme_shows_the_commands_there_are() -> None:
    shown = {"plan", "run", "check", "new", "predict", "compare", "rerun", "curve", "similar", "ui", "up"}
    shown |= {"retrain", "registry", "init"}
    assert {words[0] for words in commands()} == shown
    assert "make demo" in README
    assert "make test" in (PROJECT / ".ci" / "run").read_text()


def test_the_readme_quotes_the_pipeline() -> None:
    quoted = re.search(r"```python\nraw = (.*?)```", README, re.DOTALL)
    assert quoted
    code = (PROJECT / "apf_tasks" / "pipelines.py").read_text().replace("\n    ", "\n")
    assert "raw = " + quoted[1].strip() in code


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_commands_work_in_the_order_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    base = tiny_bert(tmp_path / "tiny")
    write_jsonl(tmp_path / "rows.jsonl", review_rows(120))
    lines = [f"{row['text']},{row['label']}" for row in review_rows(40)]
    (tmp_path / "reviews.csv").write_text("text,stars\n" + "\n".join(lines) + "\n")
    params = yaml.safe_load((PROJECT / "params" / "sentiment.yaml").read_text())
    params["data"] = {"source": "rows.jsonl"}
    params["model"] = {"base": str(base), "max_tokens": 48}
    params["split"] = {"near_duplicate_similarity": None, "validation_fraction": 0.2, "test_fraction": 0.2}
    (tmp_path / "params" / "sentiment.yaml").write_text(yaml.safe_dump(params))
    done = []
    for words in (
        ["run", "params/sentiment.yaml"],
        *(w for w in commands() if w[0] not in ELSEWHERE and w[1:] != ["example"]),
    ):
        if words[0] in ("run", "plan", "check") and not Path(words[1]).exists():
            assert (PROJECT / words[1]).is_file()  # shipped, and run elsewhere: test_smoke.py, or by hand for real data
            continue
        done.append(words[0])
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code in (0, None), words
        if "--json" in words:
            assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["model_uri"] == "models:/sentiment/1"
    assert {"run", "plan", "check", "new", "predict", "compare", "rerun"} <= set(done)
    assert len((tmp_path / "scored.csv").read_text().splitlines()) == 41
