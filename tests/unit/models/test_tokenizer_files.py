"""A model folder without tokenizer files is refused by that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from apf_tasks.errors import ModelError
from apf_tasks.models.pretrained import load_base, load_pretrained
from apf_tasks.params.model import ModelParams
from tests.support.tiny import ENCODERS, tiny_model


@pytest.mark.parametrize("architecture", ENCODERS)
def test_folder_without_its_tokenizer_is_refused(tmp_path: Path, architecture: str) -> None:
    folder = tiny_model(tmp_path / "base", architecture)
    params = ModelParams(base=str(folder), max_tokens=32)
    assert len(load_base(folder, params).tokenizer) > 4
    for path in folder.iterdir():
        if path.name != "config.json" and path.suffix != ".safetensors":
            path.unlink()

    with pytest.raises(ModelError, match=r"tokenizer files in .*none among config.json.*Copy them"):
        load_base(folder, params)
    with pytest.raises(ModelError, match="tokenizer files in"):
        load_pretrained(folder, params, "AutoModelForMaskedLM")
