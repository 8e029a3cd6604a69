"""A part of a tokenized split: the same rows every time, each with all its windows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apf_tasks.artifacts import TokenizedSplit
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.data.subset import chosen_rows, subsample
from apf_tasks.errors import UntrainableDataError
from apf_tasks.examples import Examples, save_tokens

ROWS = pd.DataFrame({"row_id": [f"r{i}" for i in range(20)], "text": [f"text {i}" for i in range(20)]})
WINDOWS = [1 + i % 3 for i in range(20)]


def tokenized(folder: Path, windows: bool, label: int = 7) -> TokenizedSplit:
    """Twenty rows; the ids of a window are [row, window], its last token is cut in every fifth row."""
    folder.mkdir()
    rows = [i for i in range(20) for _ in range(WINDOWS[i] if windows else 1)]
    ids = [[i, w] for i in range(20) for w in range(WINDOWS[i] if windows else 1)]
    columns = {"input_ids": ids, "labels": [[label, -100] for _ in ids], "truncated": [i % 5 == 0 for i in rows]}
    save_tokens(columns | ({"row": rows} if windows else {}), folder / "tokens.arrow")
    write_rows(ROWS, folder / "rows.parquet")
    return TokenizedSplit(
        path=folder,
        fingerprint=fingerprint_files(folder, ["tokens.arrow", "rows.parquet"]),
        name="train",
        tokenizer="by hand",
        rows=20,
        examples=len(ids),
        tokens=2 * len(ids),
        supervised_tokens=len(ids),
        truncated_rows=4,
        unknown_fraction=0.0,
        max_tokens=8,
        label_names=("a", "b"),
    )


def part_of(split: TokenizedSplit, fraction: float, out: Path) -> tuple[TokenizedSplit, list[str]]:
    out.mkdir()
    part = subsample(out, split, fraction)
    return part, read_rows(part.path / "rows.parquet")["text"].tolist()


@pytest.mark.parametrize("windows", [True, False])
def test_a_kept_row_keeps_all_its_windows(windows: bool, tmp_path: Path) -> None:
    part, texts = part_of(tokenized(tmp_path / "whole", windows), 0.35, tmp_path / "part")
    kept = [int(text.split()[1]) for text in texts]
    examples = Examples.of(part)
    expected = [(new, [old, w]) for new, old in enumerate(kept) for w in range(WINDOWS[old] if windows else 1)]
    assert examples.rows.tolist() == [row for row, _ in expected]
    assert examples.take(np.arange(len(examples)))["input_ids"] == [ids for _, ids in expected]
    assert (part.rows, part.examples, part.tokens) == (7, len(expected), 2 * len(expected))
    assert part.supervised_tokens == len(expected)
    assert part.truncated_rows == sum(old % 5 == 0 for old in kept)
    assert part.label_names == ("a", "b")


def test_a_smaller_part_is_a_part_of_a_larger_one(tmp_path: Path) -> None:
    split = tokenized(tmp_path / "whole", windows=True)
    parts = [part_of(split, f, tmp_path / f"{f}")[1] for f in (0.1, 0.25, 0.5, 0.75)]
    assert [len(part) for part in parts] == [2, 5, 10, 15]
    extra = [set(small) - set(large) for small, large in itertools.pairwise(parts)]
    assert extra == [set()] * 3, "what a smaller part has is in the next larger one"
    for part in parts:
        assert part == sorted(part, key=lambda text: int(text.split()[1])), "rows in their order"


def test_the_content_decides_not_the_place_or_the_name() -> None:
    shuffled = ROWS.sample(frac=1, random_state=3).reset_index(drop=True).assign(row_id=[f"x{i}" for i in range(20)])
    one, other = ROWS.loc[chosen_rows(ROWS, 0.4), "text"], shuffled.loc[chosen_rows(shuffled, 0.4), "text"]
    assert set(one) == set(other)
    assert len(chosen_rows(ROWS, 0.001)) == 1


def test_a_part_that_teaches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UntrainableDataError, match=r"0\.5 of the train split: expected targets"):
        part_of(tokenized(tmp_path / "whole", windows=True, label=-100), 0.5, tmp_path / "part")
