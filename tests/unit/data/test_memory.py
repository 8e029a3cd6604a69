"""Memory that does not grow with the rows: taking some of them, tokenizing them, comparing them with each other."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from apf_tasks.artifacts import Split
from apf_tasks.data import tokenization
from apf_tasks.data._near_duplicates import Shingles
from apf_tasks.examples import Examples, write_table
from apf_tasks.params.family import family_params
from apf_tasks.params.model import ModelParams
from tests.support.tiny import THINGS, tiny_bert


def peak(work: Callable[[], object]) -> int:
    """Bytes of Python and numpy at the most, above those of before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def arrow_peak(work: Callable[[], object]) -> int:
    """Bytes that Arrow allocates at the most."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        work()
        return int(pool.max_memory() or 0)
    finally:
        pa.set_memory_pool(before)


def mapped(folder: Path, rows: int, length: int = 16) -> pa.Table:
    """So many tokenized rows, memory-mapped as a training has them."""
    ids = pa.array(np.arange(rows * length, dtype=np.int32))
    columns = {
        "input_ids": pa.ListArray.from_arrays(np.arange(0, (rows + 1) * length, length, dtype=np.int32), ids),
        "labels": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), ids[:rows]),
        "truncated": pa.array(np.zeros(rows, dtype=bool)),
    }
    path = folder / f"{rows}.arrow"
    write_table(pa.table(columns), path)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


@pytest.mark.xfail(strict=True, reason="a take over many chunks copies all of them first")
def test_taking_rows_costs_the_same_whatever_the_size(tmp_path: Path) -> None:
    costs = []
    for rows in (10_000, 400_000):
        examples, chosen = Examples(mapped(tmp_path, rows)), np.random.default_rng(0).permutation(rows)[:32]
        costs.append(arrow_peak(lambda examples=examples, chosen=chosen: examples.take(chosen)))  # type: ignore[misc]
    assert costs[1] <= 2 * costs[0]


@pytest.mark.xfail(strict=True, reason="all columns are joined to one chunk each, a copy of the whole file")
def test_opening_a_split_copies_no_tokens(tmp_path: Path) -> None:
    table = mapped(tmp_path, 400_000)
    assert arrow_peak(lambda: Examples(table)) <= table.nbytes / 4


@pytest.mark.xfail(strict=True, reason="the tokens of all rows are Python lists until the last row is read")
def test_tokenizing_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "CHUNK_ROWS", 100)
    base = tiny_bert(tmp_path / "tiny", THINGS)
    assert tokenizing(tmp_path, base, 2000) <= 1.5 * tokenizing(tmp_path, base, 400)


def tokenizing(folder: Path, base: Path, count: int) -> int:
    """Bytes that it takes for so many rows of 40 words."""
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(THINGS, 40)) for _ in range(count)]
    out = folder / str(count)
    out.mkdir()
    pd.DataFrame({"row_id": [f"r{i}" for i in range(count)], "text": texts}).to_parquet(out / "train.parquet")
    split = Split.model_construct(path=out, fingerprint="", rows={"train": count}, label_names=(), method="hash")
    model, family = ModelParams(base=str(base), max_tokens=64), family_params("masked_lm")(name="masked_lm")
    return peak(lambda: tokenization.tokenize(out, split, "train", model, family))


@pytest.mark.xfail(
    strict=True, reason="the shingles of all texts are in memory at once, about 60 bytes for one of text"
)
def test_near_duplicates_are_found_in_bounded_memory() -> None:
    small, large = texts_of(2000), texts_of(6000)
    assert peak(lambda: Shingles(large).groups(0.8)) <= 1.5 * peak(lambda: Shingles(small).groups(0.8))


def texts_of(count: int) -> list[str]:
    """Of 60 words, common ones and rare ones as in a language."""
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(draw.choice(letters, draw.integers(2, 9))) for _ in range(5000)])
    chance = 1 / np.arange(1, len(words) + 1)
    return [" ".join(row) for row in words[draw.choice(len(words), (count, 60), p=chance / chance.sum())]]
