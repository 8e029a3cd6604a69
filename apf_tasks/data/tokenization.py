"""Rows of one split -> token ids and labels in an Arrow file, and the checks that stop a run that cannot learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from apf_tasks.artifacts import Split, TokenizedSplit
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.errors import UntrainableDataError
from apf_tasks.examples import IGNORE_INDEX, Columns
from apf_tasks.family import get_family
from apf_tasks.params.data import SplitName
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    from apf_tasks.models.pretrained import BaseModelInfo

CHUNK_ROWS = 10_000


def tokenize(out: Path, split: Split, name: SplitName, model: ModelParams, family: FamilyParams) -> TokenizedSplit:
    """Tokenize one split. Raises UntrainableDataError when nothing is supervised or most of it is unknown."""
    from apf_tasks.examples import save_tokens
    from apf_tasks.models.pretrained import load_base
    from apf_tasks.sources.models import model_folder

    base = load_base(model_folder(model), model)
    rows = read_rows(split.path / f"{name}.parquet")
    columns = _encode(rows, base, family, split.label_names)
    counts = _count(columns, base)
    _check_can_teach(counts, name, model)
    save_tokens(columns, out / "tokens.arrow")
    write_rows(rows, out / "rows.parquet")
    return TokenizedSplit(
        path=out,
        fingerprint=fingerprint_files(out, ["tokens.arrow", "rows.parquet"]),
        name=name,
        tokenizer=model.base if model.revision is None else f"{model.base}@{model.revision}",
        rows=len(rows),
        examples=len(columns["input_ids"]),
        tokens=counts["tokens"],
        supervised_tokens=counts["supervised"],
        truncated_rows=counts["truncated"],
        unknown_fraction=counts["unknown"] / max(1, counts["tokens"]),
        max_tokens=model.max_tokens,
        label_names=split.label_names,
    )


def _encode(rows: pd.DataFrame, base: BaseModelInfo, family: FamilyParams, label_names: tuple[str, ...]) -> Columns:
    """Encode in chunks; the tokenizer's own threads use all cores within one."""
    encode = get_family(family).encode
    columns: Columns = {}
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows.iloc[start : start + CHUNK_ROWS].reset_index(drop=True)
        encoded = encode(chunk, base, label_names)
        if "row" in encoded:
            encoded["row"] = [start + row for row in encoded["row"]]
        for column, values in encoded.items():
            columns.setdefault(column, []).extend(values)
    if not any(any(types) for types in columns.get("token_type_ids", [])):
        columns.pop("token_type_ids", None)  # all zero is what a model assumes without them
    return columns


def _count(columns: Columns, base: BaseModelInfo) -> dict[str, int]:
    unknown = base.tokenizer.unk_token_id
    rows = columns.get("row", range(len(columns["input_ids"])))
    return {
        "tokens": sum(len(ids) for ids in columns["input_ids"]),
        "supervised": sum(label != IGNORE_INDEX for labels in columns["labels"] for label in labels),
        "truncated": len({row for row, cut in zip(rows, columns["truncated"], strict=True) if cut}),
        "unknown": 0 if unknown is None else sum(ids.count(unknown) for ids in columns["input_ids"]),
    }


def _check_can_teach(counts: dict[str, int], name: SplitName, model: ModelParams) -> None:
    if counts["supervised"] == 0:
        do = "Check the labels, or raise model.max_tokens if truncation removed them."
        raise UntrainableDataError(f"{name} split", "targets to learn from", "every label masked", do)
    fraction = counts["unknown"] / max(1, counts["tokens"])
    if fraction > model.max_unknown_fraction:
        expected = f"at most {model.max_unknown_fraction:.0%} unknown tokens (model.max_unknown_fraction)"
        do = "Choose a model.base whose tokenizer knows this language."
        raise UntrainableDataError(f"{name} split with the tokenizer of {model.base}", expected, f"{fraction:.0%}", do)
