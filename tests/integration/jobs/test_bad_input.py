"""Bad input through the command: one readable error, exit status 1, and nothing lost of what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.stage import stage
from apf_tasks.errors import StoreError
from flows.cli.main import main
from tests.support.tiny import review_rows, tiny_bert, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")

Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


def one_class(folder: Path, params: dict[str, Any]) -> None:
    write_jsonl(folder / "rows.jsonl", [row | {"label": "positive"} for row in review_rows(120)])


def no_weights(folder: Path, params: dict[str, Any]) -> None:
    (folder / "tiny" / "model.safetensors").unlink()


def pickle_only(folder: Path, params: dict[str, Any]) -> None:
    no_weights(folder, params)
    torch.save({}, folder / "tiny" / "pytorch_model.bin")


def no_such_file(folder: Path, params: dict[str, Any]) -> None:
    params["data"]["source"] = "rows.json"


def empty_file(folder: Path, params: dict[str, Any]) -> None:
    (folder / "rows.jsonl").write_text("")


def other_column(folder: Path, params: dict[str, Any]) -> None:
    params["data"]["columns"] = {"text": "txt"}


def unknown_language(folder: Path, params: dict[str, Any]) -> None:
    rows = [{"text": f"这部电影第{i}次看还是很好" * 2, "label": "ab"[i % 2]} for i in range(120)]
    write_jsonl(folder / "rows.jsonl", rows)


def too_many_positions(folder: Path, params: dict[str, Any]) -> None:
    params["model"]["max_tokens"] = 65


def too_many_bad_rows(folder: Path, params: dict[str, Any]) -> None:
    write_jsonl(folder / "rows.jsonl", [*review_rows(100), *({"text": "", "label": "positive"} for _ in range(5))])


def other_architecture(folder: Path, params: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file({"something.else": torch.zeros(3)}, folder / "tiny" / "model.safetensors", metadata={"format": "pt"})


CASES: list[tuple[Change, str, list[str]]] = [
    (one_class, "UntrainableDataError", ["two labels or more", "only 'positive'"]),
    (no_weights, "ModelError", ["weights (*.safetensors)", "Name a folder with model.safetensors"]),
    (pickle_only, "ModelError", ["pytorch_model.bin", "Unpickling runs code", "model.allow_pickle: true"]),
    (no_such_file, "SourceError", ["no rows.json", "Did you mean rows.jsonl?"]),
    (empty_file, "DataError", ["an empty file"]),
    (other_column, "DataError", ["a column 'txt'", "the columns text, label"]),
    (
        unknown_language,
        "UntrainableDataError",
        ["unknown tokens (model.max_unknown_fraction)", "whose tokenizer knows"],
    ),
    (too_many_positions, "ModelError", ["at most 64", "65 requested"]),
    (too_many_bad_rows, "DataError", ["5 of 105", "empty text", "rejected.jsonl"]),
    (other_architecture, "ModelError", ["pretrained weights", "of its parameters missing"]),
]


@pytest.mark.parametrize(("change", "kind", "parts"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_it_is_said_what_is_wrong(
    change: Change,
    kind: str,
    parts: list[str],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / "tiny")
    write_jsonl(tmp_path / "rows.jsonl", review_rows(120))
    params: dict[str, Any] = {
        "family": "sentiment",
        "data": {"source": "rows.jsonl"},
        "split": {"near_duplicate_similarity": None},
        "model": {"base": "./tiny", "max_tokens": 48},
        "train": {"epochs": 1},
    }
    change(tmp_path, params)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(params))
    assert main(["run", "bad.yaml"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert kind in said
    for part in parts:
        assert part in said
    assert "Traceback" not in said.split(kind)[-1]
    # what came before the trouble is kept and found again
    kept = {path.parent.parent.name for path in (tmp_path / "mlruns" / "stages").glob("*/*/handle.json")}
    late = (no_weights, pickle_only, unknown_language, too_many_positions, other_architecture)
    assert kept >= ({"ingest", "split_rows"} if change in late else set())


@stage(code=["cache.store"])
def fills_the_disk(out: Path, size: int) -> Artifact:
    """Write where there is no room: /dev/full answers as a full disk does."""
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(bytes(size))
    return Artifact(path=out, fingerprint="never")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_finished_stages_are_kept() -> None:
    with pytest.raises(StoreError, match=r"GiB free\. Free some space and run the same command again: finished stages"):
        fills_the_disk(10)
    assert not list(store.stage_folder("fills_the_disk").glob("*/handle.json"))
