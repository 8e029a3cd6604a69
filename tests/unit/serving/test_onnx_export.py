"""Models as ONNX: what answers differently is not kept, what cannot be exported is said, a folder is never half there.

docs/ONNX.md has more architectures: benchmarks/onnx_architectures.py.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from apf_tasks.errors import ExportError
from apf_tasks.params.family import family_params
from apf_tasks.serving.onnx.export import MODEL, RECORD, _folder, check_exportable, check_target
from apf_tasks.serving.onnx.replay import TOLERANCE, replay
from benchmarks.onnx_architectures import base, family_of, network_of, served_rows, tried


@pytest.mark.parametrize(
    ("architecture", "case"), [("deberta-v2", "ner"), pytest.param("gpt2", "label", marks=pytest.mark.slow)]
)
def test_an_export_answers_as_the_original(
    tmp_path: Path, architecture: str, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    network = network_of(base(tmp_path / "base", architecture, hidden=32, layers=2), family_of(case))
    capfd.readouterr()
    found = tried(tmp_path / "export", network).replay
    said = capfd.readouterr()
    assert said.out == ""
    others = [line for line in said.err.splitlines() if not line.startswith(("export ", "replay "))]
    assert others == [], "our lines, and no library's"
    assert found.alike == found.rows
    assert found.same_decisions == found.decisions > 0
    assert found.largest_difference < TOLERANCE / 10
    assert found.largest_output > 0.1
    assert found.shapes > 3
    graph = onnx.load(tmp_path / "export" / MODEL, load_external_data=False).graph
    [axes] = {tuple(axis.dim_param for axis in tensor.type.tensor_type.shape.dim) for tensor in graph.input}
    assert "" not in axes, "every axis has a name: no length is written into the graph"
    assert len(set(axes)) == 2

    with torch.no_grad():  # another model by a hair
        for tensor in network.model.parameters():
            tensor *= 1.05
    with pytest.raises(ExportError, match=r"model.onnx against the original: expected outputs that differ by 0.001"):
        replay(network, {}, tmp_path / "export" / MODEL, served_rows(network))


@pytest.mark.parametrize(
    ("family", "config", "found"),
    [
        ({"name": "causal_lm", "mode": "instructions"}, "{}", "one that generates its answer token by token. Serve it"),
        (
            {"name": "translation"},
            '{"is_encoder_decoder": true}',
            "one that generates its answer token by token. Serve it",
        ),
        (
            {"name": "sentiment"},
            '{"is_encoder_decoder": true}',
            "an encoder-decoder. Serve it with `apf serve writer/1`",
        ),
    ],
)
def test_what_writes_text_is_refused(tmp_path: Path, family: dict[str, str], config: str, found: str) -> None:
    (tmp_path / "config.json").write_text(config)
    options = family_params(family["name"]).model_validate(family)
    with pytest.raises(ExportError, match=f"a model that answers in one forward pass, found {found}"):
        check_exportable("models:/writer/1", options, tmp_path)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "out" / "reviews"

    def full_disk() -> None:
        with _folder(target, force=False) as folder:
            (folder / MODEL).touch()
            raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(OSError, match="no space left"):
        full_disk()
    assert list((tmp_path / "out").iterdir()) == []

    killed = (
        "import os, signal, sys; from pathlib import Path; from apf_tasks.serving.onnx.export import _folder\n"
        "with _folder(Path(sys.argv[1]), False) as folder:\n"
        "    (folder / 'model.onnx').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(target)], check=False)
    assert done.returncode == -9
    assert not target.exists()
    with _folder(target, force=False) as folder:
        (folder / RECORD).write_text("first")
        assert [path.name for path in target.parent.iterdir()] == [f".reviews.{os.getpid()}.partial"]
    with pytest.raises(ExportError, match=r"found an older export. Add --force"):
        check_target(target, force=False)
    with _folder(target, force=True) as folder:
        (folder / RECORD).write_text("second")
    assert (target / RECORD).read_text() == "second"
    assert [path.name for path in target.parent.iterdir()] == ["reviews"]
    with pytest.raises(ExportError, match=r"found something else. Choose another folder"):
        check_target(tmp_path / "out", force=True)
    assert target.exists()
