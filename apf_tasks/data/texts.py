"""The texts of a split that a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apf_tasks.artifacts import Split
from apf_tasks.data.rows import read_rows
from apf_tasks.family import get_family
from apf_tasks.params.family import FamilyParams


def training_texts(split: Split, family: FamilyParams) -> list[str]:
    """Every text that a tokenizer may learn from the train split, lists and mappings entered."""
    functions = get_family(family)
    columns = functions.taught_columns or functions.key_columns or functions.text_columns
    rows = read_rows(split.path / "train.parquet")
    return [text for name in columns for value in rows[name] for text in _texts(value)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
