"""A model from scratch for a split: its tokenizer learns from the texts of train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apf_tasks.artifacts import ScratchModel, Split
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.rows import read_rows
from apf_tasks.family import get_family
from apf_tasks.models import scratch
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams, TokenizerParams
from apf_tasks.sources.models import tokenizer_folder


def build_base(
    out: Path, split: Split, model: ModelParams, tokenizer: TokenizerParams, family: FamilyParams
) -> ScratchModel:
    """A model from scratch whose tokenizer knows the train split. Raises ModelError, UntrainableDataError."""
    folder = None if tokenizer.base is None else tokenizer_folder(tokenizer)
    built = scratch.build_from_scratch(out, training_texts(split, family), model, tokenizer, folder)
    return built.model_copy(update={"fingerprint": fingerprint_files(out, ["model"])})


def training_texts(split: Split, family: FamilyParams) -> list[str]:
    """Every text that a tokenizer may learn from the train split, lists and mappings entered."""
    functions = get_family(family)
    columns = functions.tokenizer_columns or functions.key_columns or functions.text_columns
    rows = read_rows(split.path / "train.parquet")
    return [text for name in columns for value in rows[name] for text in _texts(value)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
