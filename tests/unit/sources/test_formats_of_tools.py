"""Files as annotation tools, peers and spreadsheets write them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from apf_tasks.errors import DataError
from apf_tasks.params.data import DataParams
from apf_tasks.sources.formats.table import Table
from apf_tasks.sources.reading import read_source

Rows = list[dict[str, Any]]
SPAN = {"start": 7, "end": 11, "label": "PER"}
TEXT = "Doctor Alma in Lyon"


def table(path: Path, content: str | bytes = b"", **data: Any) -> Table:
    if content:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    ((_, found),) = read_source(DataParams.model_validate({"source": str(path), **data}))
    return found


def rows(found: Table) -> Rows:
    columns = [found.values(i) for i in range(len(found.columns))]
    return [dict(zip(found.columns, row, strict=True)) for row in zip(*columns, strict=True)]


STUDIO_SPAN = {"start": 7, "end": 11, "text": "Alma", "labels": ["PER"]}
ANNOTATED: dict[str, tuple[Any, Rows]] = {
    "Label Studio": (
        {"id": 3, "data": {"text": TEXT}, "annotations": [{"result": [{"type": "labels", "value": STUDIO_SPAN}]}]},
        [{"text": TEXT, "id": 3, "spans": [SPAN | {"text": "Alma"}]}],
    ),
    "Label Studio, choices": (
        {"id": 3, "data": {"text": TEXT}, "annotations": [{"result": [{"value": {"choices": ["good"]}}]}]},
        [{"text": TEXT, "id": 3, "label": "good"}],
    ),
    "Label Studio, not annotated": ({"id": 3, "data": {"text": TEXT}, "annotations": []}, []),
    "Label Studio, short": (
        {"text": TEXT, "label": [STUDIO_SPAN]},
        [{"text": TEXT, "spans": [SPAN | {"text": "Alma"}]}],
    ),
    "spaCy": ([TEXT, {"entities": [[7, 11, "PER"]]}], [{"text": TEXT, "spans": [SPAN]}]),
    "spaCy, categories": ([TEXT, {"cats": {"good": 1.0, "bad": 0.0}}], [{"text": TEXT, "labels": ["good"]}]),
    "Prodigy": (
        {"text": TEXT, "_input_hash": 1, "_task_hash": 2, "tokens": [], "spans": [SPAN], "answer": "accept"},
        [{"text": TEXT, "_input_hash": 1, "_task_hash": 2, "spans": [SPAN]}],
    ),
    "Prodigy, rejected": ({"text": TEXT, "_input_hash": 1, "_task_hash": 2, "spans": [SPAN], "answer": "reject"}, []),
    "CLUENER": (
        {"text": TEXT, "label": {"PER": {"Alma": [[7, 10]]}}},
        [{"text": TEXT, "spans": [SPAN | {"text": "Alma"}]}],
    ),
    "plain": ({"text": TEXT, "label": {"a": 1}}, [{"text": TEXT, "label": {"a": 1}}]),
}


@pytest.mark.parametrize("name", ANNOTATED)
def test_exports_of_annotation_tools(name: str, tmp_path: Path) -> None:
    given, expected = ANNOTATED[name]
    found = table(tmp_path / "a.json", json.dumps([given]))
    assert (rows(found), len(found.left_out), found.rejected) == (expected, 1 - len(expected), [])


def test_fasttext_lines_have_one_label_each_or_several(tmp_path: Path) -> None:
    one = table(tmp_path / "a.txt", "__label__good a  warm day\n__label__bad\tcold\n", format="fasttext")
    assert rows(one) == [{"text": "a warm day", "label": "good"}, {"text": "cold", "label": "bad"}]
    several = table(tmp_path / "b.txt", "__label__x __label__y warm\n\nno label\n", format="fasttext")
    assert rows(several) == [{"text": "warm", "labels": ["x", "y"]}, {"text": "no label", "labels": []}]
    assert several.numbers == [1, 3]


def test_trees_give_their_leaves_and_the_label_of_the_root(tmp_path: Path) -> None:
    found = table(tmp_path / "a.txt", "(4 (2 A) (3 (2 warm) (2 -LRB-)))\n(1 broken\n", format="trees")
    assert rows(found) == [{"text": "A warm (", "label": "4"}]
    assert [r.row for r in found.rejected] == [2]


def test_conll_whose_first_column_counts_the_words(tmp_path: Path) -> None:
    text = "#\thttp://a.example [2009]\n1\tAnna\tB-PER\tO\n2\tfährt\tO\tO\n\n1\tKöln\tB-LOC\tB-ORG\n2\truft\tO\tO\n"
    assert rows(table(tmp_path / "a.conll", text)) == [
        {"tokens": ["Anna", "fährt"], "tags": ["B-PER", "O"], "tags_2": ["O", "O"]},
        {"tokens": ["Köln", "ruft"], "tags": ["B-LOC", "O"], "tags_2": ["B-ORG", "O"]},
    ]


def test_conllu_leaves_out_contractions(tmp_path: Path) -> None:
    def line(number: str, form: str, upos: str) -> str:
        return "\t".join([number, form, form.lower(), upos, *"______"]) + "\n"

    text = "# text = It isn't\n" + line("1", "It", "PRON") + line("2-3", "isn't", "_")
    text += line("2", "is", "AUX") + line("3", "n't", "PART") + line("3.1", "so", "ADV")
    (row,) = rows(table(tmp_path / "a.conllu", text))
    assert (row["tokens"], row["tags"], row["lemma"]) == (
        ["It", "is", "n't"],
        ["PRON", "AUX", "PART"],
        ["it", "is", "n't"],
    )


def test_a_score_is_a_token_where_no_column_counts(tmp_path: Path) -> None:
    (row,) = rows(table(tmp_path / "a.conll", "Bonn B-ORG\nwon O\n2-1 O\n"))
    assert row["tokens"] == ["Bonn", "won", "2-1"]


@pytest.mark.parametrize("shape", ["list", "data", "paragraphs"])
def test_questions_without_the_wrapping_of_squad(shape: str, tmp_path: Path) -> None:
    asked = [{"id": "0", "question": "Who?", "answers": [{"text": "Alma", "answer_start": 7}]}]
    paragraph = {"context": TEXT, "qas": asked}
    value: Any = {"list": [paragraph], "data": {"data": [paragraph]}, "paragraphs": [{"paragraphs": [paragraph]}]}[
        shape
    ]
    (row,) = rows(table(tmp_path / "a.json", json.dumps(value)))
    assert (row["context"], row["question"], row["answers"][0]["answer_start"]) == (TEXT, "Who?", 7)


CELLS = {
    "Python": ("[{'role': 'user', 'content': \"it's\"}]", [{"role": "user", "content": "it's"}]),
    "JSON": ('{"text": ["a", null]}', {"text": ["a", None]}),
    "arrays": ("{'text': array(['a', 'b'], dtype=object), 'n': (1, nan)}", {"text": ["a", "b"], "n": [1, None]}),
    "without commas": ("['B-PER' 'O']", "['B-PER' 'O']"),
    "a call": ("[open('x')]", "[open('x')]"),
    "text": ("[sic] he said", "[sic] he said"),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_that_hold_lists_and_objects(name: str, tmp_path: Path) -> None:
    cell, expected = CELLS[name]
    path = tmp_path / "a.csv"
    pd.DataFrame({"id": [1, 2], "cell": [cell, None]}).to_csv(path, index=False)
    assert [row["cell"] for row in rows(table(path))] == [expected, None]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(mark: str, tmp_path: Path) -> None:
    lines = [["text", "price", "label"], ["a; b, c", "1,50", "x"], ["d | e", "2,00", "y"]]
    content = "\n".join(mark.join(f'"{cell}"' if mark in cell else cell for cell in line) for line in lines)
    found = rows(table(tmp_path / "a.csv", content + "\n"))
    assert [(row["text"], row["price"]) for row in found] == [("a; b, c", "1,50"), ("d | e", "2,00")]


def test_empty_lines_and_repeated_headers_are_no_rows(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "text;label\na;x\ntext;label\nb;y\n;\n")
    assert [row["text"] for row in rows(found)] == ["a", "b"]
    assert [(r.row, r.reason) for r in found.left_out] == [
        (3, "the header once more"),
        (5, "an empty line of the table"),
    ]


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_a_compressed_file_is_read_as_what_is_in_it(ending: str, tmp_path: Path) -> None:
    content, path = b"text,label\na,x\n", tmp_path / f"a.csv.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", content)
            archive.writestr("__MACOSX/._a.csv", b"\0")
    else:
        path.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress(content))  # type: ignore[attr-defined]
    assert rows(table(path)) == [{"text": "a", "label": "x"}]


def test_a_zip_of_several_files_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("a.csv", b"a")
        archive.writestr("b.csv", b"b")
    with pytest.raises(DataError, match=r"one file in the archive, found 2 files: a.csv, b.csv"):
        table(tmp_path / "a.csv.zip")
    with pytest.raises(DataError, match="a compressed file that can be read"):
        table(tmp_path / "a.csv.gz", gzip.compress(b"text,label\n" * 100)[:-20])


def test_a_workbook_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    sheet = pd.DataFrame({"text": ["NA", None, "null"], "label": [1, None, 2]})
    sheet.to_excel(path, index=False)
    found = table(path)
    assert [(row["text"], row["label"]) for row in rows(found)] == [("NA", 1), ("null", 2)]
    assert (found.numbers, [r.row for r in found.left_out]) == ([2, 4], [3])
    with pd.ExcelWriter(path) as book:
        sheet.to_excel(book, sheet_name="one", index=False)
        sheet[:1].to_excel(book, sheet_name="two", index=False)
    assert len(rows(table(path, sheet="two"))) == len(rows(table(path, sheet=1))) == 1
    with pytest.raises(DataError, match=r"found the sheets one, two\. Write data\.sheet"):
        table(path)
    with pytest.raises(DataError, match="a workbook that can be read"):
        table(tmp_path / "b.xlsx", "no workbook")


def test_parquet_brings_the_names_of_its_labels(tmp_path: Path) -> None:
    names = ["entailment", "neutral"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names), "tags": [ClassLabel(names=names)]})
    given = {"text": ["a", "b"], "label": [1, -1], "tags": [[0], [1, 0]]}
    Dataset.from_dict(given, features=features).to_parquet(tmp_path / "a.parquet")
    assert rows(table(tmp_path / "a.parquet")) == [
        {"text": "a", "label": "neutral", "tags": ["entailment"]},
        {"text": "b", "label": None, "tags": ["neutral", "entailment"]},
    ]
