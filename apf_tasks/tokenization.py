"""Rows of one split -> token ids and labels in an Arrow file, and the checks that stop a run that cannot learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from apf_tasks.artifacts import Split, TokenizedSplit
from apf_tasks.errors import CannotTeach
from apf_tasks.families import IGNORE_INDEX, get_family
from apf_tasks.params import FamilyParams, ModelParams, SplitName
from apf_tasks.store import fingerprint_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK_ROWS = 10_000


def tokenize(out: Path, split: Split, name: SplitName, model: ModelParams, family: FamilyParams) -> TokenizedSplit:
    """Tokenize one split. Raises CannotTeach when nothing is supervised or the tokenizer does not know the text."""
    from apf_tasks.batching import save_tokens
    from apf_tasks.pretrained import check_fit, load_tokenizer
    from apf_tasks.sources import model_folder

    folder = model_folder(model)
    tokenizer = load_tokenizer(folder, model)
    check_fit(tokenizer, folder, model)
    rows = pd.read_parquet(split.path / f"{name}.parquet")
    columns = _encode(rows, tokenizer, model, family, split.label_names)
    counts = _count(columns, tokenizer)
    _check_can_teach(counts, name, model)
    save_tokens(columns, out / "tokens.arrow")
    rows.to_parquet(out / "rows.parquet", index=False)
    return TokenizedSplit(
        path=out,
        fingerprint=fingerprint_files(out, ["tokens.arrow", "rows.parquet"]),
        name=name,
        tokenizer=model.base if model.revision is None else f"{model.base}@{model.revision}",
        rows=len(rows),
        tokens=counts["tokens"],
        supervised_tokens=counts["supervised"],
        truncated_rows=counts["truncated"],
        unknown_fraction=counts["unknown"] / max(1, counts["tokens"]),
        max_tokens=model.max_tokens,
        label_names=split.label_names,
    )


def _encode(
    rows: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    model: ModelParams,
    family: FamilyParams,
    label_names: tuple[str, ...],
) -> dict[str, list[Any]]:
    """Encode in chunks; the tokenizer's own threads use all cores within one."""
    encode = get_family(family.name).encode
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows.iloc[start : start + CHUNK_ROWS]
        for column, values in encode(chunk, tokenizer, family, label_names, model.max_tokens).items():
            columns.setdefault(column, []).extend(values)
    if not any(any(types) for types in columns.get("token_type_ids", [])):
        columns.pop("token_type_ids", None)  # all zero is what a model assumes without them
    return columns


def _count(columns: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    unknown = tokenizer.unk_token_id
    return {
        "tokens": sum(len(ids) for ids in columns["input_ids"]),
        "supervised": sum(label != IGNORE_INDEX for labels in columns["labels"] for label in labels),
        "truncated": sum(columns["truncated"]),
        "unknown": 0 if unknown is None else sum(ids.count(unknown) for ids in columns["input_ids"]),
    }


def _check_can_teach(counts: dict[str, int], name: SplitName, model: ModelParams) -> None:
    if counts["supervised"] == 0:
        do = "Look at the labels, or raise model.max_tokens if truncation cut them away."
        raise CannotTeach(f"{name} split", "targets to learn from", "every label masked", do)
    fraction = counts["unknown"] / max(1, counts["tokens"])
    if fraction > model.max_unknown_fraction:
        expected = f"at most {model.max_unknown_fraction:.0%} unknown tokens (model.max_unknown_fraction)"
        do = "Choose a model.base whose tokenizer knows this language."
        raise CannotTeach(f"{name} split with the tokenizer of {model.base}", expected, f"{fraction:.0%}", do)
