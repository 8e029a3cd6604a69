"""Files in pieces: the same rows as the readers of data sources find, broken ones in their places, little memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest

from apf_tasks.errors import ApfError, DataError
from apf_tasks.params.data import DataParams
from apf_tasks.serving._row_chunks import Row, chunks
from apf_tasks.sources.reading import read_file

TEXTS = ["plain", 'with "quotes"', "two\nlines", "好电影,真的", "", "a,b", "tab here", "line sep"]


def rows_of(file: Path, size: int) -> list[Row]:
    found = list(chunks(file, size))
    assert max(map(len, found)) <= size, f"at most {size} rows in a chunk"
    return [row for chunk in found for row in chunk]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "tsv", "json"])
def test_pieces_of_any_size_are_the_whole(tmp_path: Path, ending: str, size: int) -> None:
    texts = [text.replace("\n", " ") if ending == "tsv" else text for text in TEXTS * 3]
    table = pd.DataFrame({"text": texts, "n": [str(i) for i in range(len(texts))]})
    file = tmp_path / f"rows.{ending}"
    if ending == "csv":
        table.to_csv(file, index=False)
    elif ending == "tsv":
        file.write_text("text\tn\n" + "".join(f"{t}\t{n}\n" for t, n in zip(table["text"], table["n"], strict=True)))
    elif ending == "parquet":
        table.to_parquet(file)
    else:
        table.to_json(file, orient="records", lines=ending == "jsonl", force_ascii=False)
    found = rows_of(file, size)
    assert [row.values for row in found] == [
        {"text": text or None, "n": str(i)} for i, text in enumerate(texts)
    ]  # nothing at all is missing
    assert [row.number for row in found] == read_file(file, file.name, DataParams(source=str(file))).numbers


@pytest.mark.parametrize("size", [2, 1000])
def test_broken_rows_keep_their_places(tmp_path: Path, size: int) -> None:
    lines = [b'{"text": "a"}', b"[1, 2]", b"not json", b"", b'{"text": "\xff"}', '{"text": "好"}'.encode(), b'{"t": 1}']
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    found = rows_of(file, size)
    assert [row.number for row in found] == [1, 2, 3, 5, 6, 7]
    assert [bool(row.problem) for row in found] == [False, True, True, True, False, False]
    assert [row.values.get("text") for row in found] == ["a", None, None, None, "好", None]
    assert found[5].values["t"] == "1"
    assert "0xff is not UTF-8" in found[3].problem


def test_an_open_quotation_mark_swallows_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text\n" + "fine\n" * 5 + '"open\n' + "fine\n" * 5000)
    found = rows_of(file, 100)
    assert sum(row.values == {"text": "fine"} for row in found) >= 5004
    assert [row.problem for row in found if row.problem] != [], "the open line is named as a problem"


def test_other_encodings_are_read_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(("text\n" + "这部电影非常好看，演员的表演令人感动\n" * 50).encode("gb18030"))
    assert rows_of(file, 10)[49].values == {"text": "这部电影非常好看，演员的表演令人感动"}


def test_a_file_without_rows_is_said(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text\n")
    with pytest.raises(DataError, match="expected rows, found none"):
        rows_of(file, 10)
    with pytest.raises(ApfError, match="nowhere"):
        rows_of(tmp_path / "nowhere.csv", 10)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with file.open("w") as out:
        for i in range(60_000):
            out.write(json.dumps({"text": f"row {i} " + "x" * 200}) + "\n")
    tracemalloc.start()
    assert sum(len(chunk) for chunk in chunks(file, 1000)) == 60_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < file.stat().st_size / 3


def test_a_parquet_file_that_is_damaged_further_down_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pd.DataFrame({"text": [f"text number {i}" for i in range(4000)]}).to_parquet(file, row_group_size=1000)
    raw = bytearray(file.read_bytes())
    middle = slice(len(raw) * 3 // 5, len(raw) * 3 // 5 + 400)
    raw[middle] = bytes(reversed(raw[middle]))
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"rows\.parquet: expected a Parquet file that can be read"):
        list(chunks(file))
