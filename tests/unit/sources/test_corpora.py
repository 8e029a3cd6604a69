"""The file formats of corpora, each by small files written out here, clean and broken."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from apf_tasks.errors import DataError, SourceError
from apf_tasks.params.data import DataParams
from apf_tasks.sources.data import data_files, data_identity
from apf_tasks.sources.formats.table import Table
from apf_tasks.sources.reading import read_source
from tests.support.archives import make_zip, tar


class Place:
    """A folder of files, and what reading them gives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def tables(self, source: str, **data: Any) -> list[Table]:
        text = source if source.startswith("pypi:") else str(self.folder / source)
        return [table for _, table in read_source(DataParams.model_validate({"source": text, **data}))]

    def read(self, name: str, content: str | bytes, **data: Any) -> Table:
        self.write(name, content)
        return self.tables(name, **data)[0]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "rows")


def columns(table: Table) -> dict[str, list[Any]]:
    return {name: table.values(i) for i, name in enumerate(table.columns)}


def rejected(table: Table) -> list[tuple[int, str]]:
    return [(r.row, r.reason) for r in table.rejected]


# conll


def test_conll_passes_tags_through_and_numbers_documents(place: Place) -> None:
    text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\nPeter NNP S-PER\n\n"
    text += "-DOCSTART- -X- O\r\n\r\n# NN O\r\n1 CD I-LOC"
    table = place.read("a.conll", text)
    assert columns(table) == {
        "tokens": [["EU", "rejects"], ["Peter"], ["#", "1"]],
        "tags": [["B-ORG", "O"], ["S-PER"], ["O", "I-LOC"]],
        "document": ["a.conll:1", "a.conll:1", "a.conll:2"],
    }
    assert (table.numbers, table.rejected) == ([3, 6, 10], [])


def test_conll_by_tabs_with_comments_and_odd_tokens(place: Place) -> None:
    lines = ["# id 7\tdomain=train", "#", "#nofilter\tO", "New York\tB-location", "\t", "# text O", "#\tO", "\u3000\tO"]
    table = place.read("a.bio", "\n".join([*lines, "line\u2028separator\tO"]) + "\n")
    assert columns(table) == {
        "tokens": [["#nofilter", "New York"], ["#", "\u3000", "line\u2028separator"]],
        "tags": [["O", "B-location"], ["O", "O", "O"]],
    }
    assert table.numbers == [3, 7]


def test_conll_sentences_with_ragged_lines_are_rejected(place: Place) -> None:
    text = "a O\nb O\n\nalone\nb O\n\na O\nb NN O\n\na\tO\n\tO\n\na O\n# c d O\n\nz O\n"
    table = place.read("a.iob2", text)
    assert rejected(table) == [
        (4, "a line with a single column"),
        (7, "a line with 3 columns instead of 2"),
        (10, "a tag without its token"),
        (13, "a line with 4 columns instead of 2"),
    ]
    assert (table.values(0), table.numbers) == ([["a", "b"], ["z"]], [1, 16])


def test_conll_is_known_by_either_ending(place: Place) -> None:
    assert place.read("a.conll.txt", "a O\n").columns == ("tokens", "tags")
    assert place.read("b.annotated", "a\tO\n", format="conll").columns == ("tokens", "tags")


# word_tag


def test_word_tag(place: Place) -> None:
    lines = [
        "19980101-01-001-002/m  ［/w  江/nr  泽民/nr  1/2/m  //w",
        "",
        "19980131-02-010-001/m [中央/n 电台/n]nt 和/c [/w [北京/ns 大学/n]/nt ]/w",
        "没有/v  编号/n [微笑]/e",
    ]
    table = place.read("199801.txt", "\n".join(lines), format="word_tag")
    assert columns(table) == {
        "tokens": [
            ["［", "江", "泽民", "1/2", "/"],
            ["中央", "电台", "和", "[", "北京", "大学", "]"],
            ["没有", "编号", "[微笑]"],
        ],
        "tags": [["w", "nr", "nr", "m", "w"], ["n", "n", "c", "w", "ns", "n", "w"], ["v", "n", "e"]],
        "compounds": [[], [{"start": 0, "end": 2, "tag": "nt"}, {"start": 4, "end": 6, "tag": "nt"}], []],
        "document": ["19980101-01-001", "19980131-02-010", None],
    }
    assert (table.numbers, table.rejected) == ([1, 3, 4], [])


def test_word_tag_lines_that_cannot_be_used(place: Place) -> None:
    table = place.read("a.txt", "好/a\n好\n/a\n好/\n电台/n]nt\n19980101-01-001-001/m\n", format="word_tag")
    assert rejected(table) == [
        *((line, "a word without its tag") for line in (2, 3, 4)),
        (5, "a ] without its ["),
        (6, "no words"),
    ]
    assert table.columns == ("tokens", "tags", "compounds")


# squad


def squad(*paragraphs: Any, **entry: Any) -> str:
    return json.dumps({"version": "2.0", "data": [{"title": "T", "paragraphs": list(paragraphs), **entry}]})


def test_squad(place: Place) -> None:
    answers = [{"text": "in Paris", "answer_start": 7, "id": "x"}, {"text": "Paris", "answer_start": 10}]
    qas = [
        {"id": "q1", "question": "Where?", "answers": answers, "is_impossible": False},
        {"id": "q2", "question": "When?", "is_impossible": True, "plausible_answers": []},
        {"id": 3, "question": "Who?"},
    ]
    table = place.read("a.json", squad({"context": "He was in Paris.", "qas": qas}))
    assert columns(table) == {
        "id": ["q1", "q2", 3],
        "title": ["T"] * 3,
        "context": ["He was in Paris."] * 3,
        "question": ["Where?", "When?", "Who?"],
        "answers": [
            [{"text": "in Paris", "answer_start": 7}, {"text": "Paris", "answer_start": 10}], [], None,
        ],
        "is_impossible": [False, True, None],
    }  # fmt: skip
    assert (table.numbers, table.rejected) == ([1, 2, 3], [])


def test_the_two_forms_of_cmrc(place: Place) -> None:
    paragraph = {"id": "D0", "title": "战国", "context": "由光荣开发。", "qas": [{"id": "D0_1", "question": "谁？"}]}
    paragraph["qas"][0]["answers"] = [{"text": "光荣", "answer_start": 1}]  # type: ignore[index]
    later = place.read("a.json", json.dumps({"version": "v1.0", "data": [{"paragraphs": [paragraph], "id": "D"}]}))
    assert (later.values(1), later.values(4)) == (["战国"], [[{"text": "光荣", "answer_start": 1}]])
    first = [
        {"context_id": "D0", "context_text": "由光荣开发。", "title": "战国",
         "qas": [{"query_id": "D0_1", "query_text": "谁？", "answers": ["光荣"]}]},
    ]  # fmt: skip
    table = place.read("b.json", json.dumps(first))
    assert columns(table) == columns(later) | {"answers": [[{"text": "光荣", "answer_start": None}]]}


def test_squad_questions_of_a_wrong_shape_say_where(place: Place) -> None:
    def ask(**wrong: Any) -> dict[str, Any]:
        return {"id": "q", "question": "Why?", "answers": [{"text": "a", "answer_start": 0}], **wrong}

    text = squad(
        {"context": "a b", "qas": [ask(question=1), "?", ask(is_impossible="no"), ask(answers="a"), ask()]},
        {"context": None, "qas": [ask(), ask()]},
        {"context": "a b"},
        [],
        {
            "context": "a",
            "qas": [ask(answers=[{"text": "a"}, {"text": "a", "answer_start": "0"}]), ask(question="\ud83d")],
        },
    )
    data = json.loads(text)
    data["data"] += [{"title": "no paragraphs"}, 7]
    table = place.read("a.json", json.dumps(data))
    assert rejected(table) == [
        (1, "entry 1, paragraph 1, question 1: the question is not text"),
        (2, "entry 1, paragraph 1, question 2 is not an object"),
        (3, "entry 1, paragraph 1, question 3: is_impossible is neither true nor false"),
        (4, "entry 1, paragraph 1, question 4: the answers are not a list"),
        (6, "entry 1, paragraph 2 has no context"),
        (7, "entry 1, paragraph 2 has no context"),
        (8, "entry 1, paragraph 3 has no list of questions (qas)"),
        (9, "entry 1, paragraph 4 is not an object"),
        (10, "entry 1, paragraph 5, question 1: answer 2 is not a text with its answer_start"),
        (11, "half of a surrogate pair: no valid Unicode text"),
        (12, "entry 2 has no list of paragraphs"),
        (13, "entry 3 is not an object"),
    ]
    assert table.numbers == [5]


def test_what_is_no_squad_is_refused(place: Place) -> None:
    with pytest.raises(DataError, match=r"an object whose `data` has `paragraphs`.*, found an object with rows"):
        place.read("a.json", '{"rows": []}', format="squad")
    with pytest.raises(DataError, match=r"found neither. For plain rows write data.format: json"):
        place.read("a.json", '[{"text": "a"}]', format="squad")


# json


def test_an_array_of_objects(place: Place) -> None:
    text = '[{"text": "a", "n": 1},\n 7, {"text": "half \\ud83d"}, {"text": "\\ud83d\\ude00", "label": ["x"]}]'
    for name in ("a.json", "a.jsonl"):
        table = place.read(name, text)
        assert columns(table) == {"text": ["a", "😀"], "n": [1, None], "label": [None, ["x"]]}
        assert table.numbers == [1, 4]
        assert rejected(table) == [(2, "not a JSON object"), (3, "half of a surrogate pair: no valid Unicode text")]
    with pytest.raises(DataError, match="expected one JSON object per line, found one JSON array"):
        place.read("a.jsonl", text, format="jsonl")


def test_json_files_of_lines_are_read_by_line(place: Place) -> None:
    table = place.read("a.json", '{"text": "a"}\n\n{"text": \n{"text": "b"}\n')
    assert (columns(table), table.numbers) == ({"text": ["a", "b"]}, [1, 4])
    assert rejected(table) == [(3, "not valid JSON: Expecting value: line 1 column 10 (char 9)")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"text": "a"}, {"te', r"one JSON value, found not valid JSON: Unterminated string"),
        ('{"a": 1, "b": 2}', r"an array of objects, or .*, found an object with a, b"),
        ("3", r"an array of objects, or .*, found 3"),
    ],
)
def test_json_that_holds_no_rows(place: Place, text: str, found: str) -> None:
    with pytest.raises(DataError, match=found):
        place.read("a.json", text)


# parallel


def test_parallel_files(place: Place) -> None:
    place.write("train.en", "Hi.\n\nA\u2028B\r\nEnd\n")
    place.write("train.zh", "嗨。\n空\n甲乙\n  ")
    (table,) = place.tables("train.{en,zh}")
    assert columns(table) == {"en": ["Hi.", None, "A\u2028B", "End"], "zh": ["嗨。", "空", "甲乙", None]}
    assert (table.name, table.numbers, table.rejected) == ("train.en", [1, 2, 3, 4], [])


def test_parallel_files_of_different_length_name_both_counts(place: Place) -> None:
    place.write("train.en", "a\nb\nc\n")
    place.write("train.zh", "甲\n乙\n")
    expected = (
        r"train.en: expected as many lines on every side, found 3 in 'en' and 2 in 'zh'. "
        r"Line 3 is the first without a counterpart \(zh has ended\)"
    )
    with pytest.raises(DataError, match=expected):
        place.tables("train.{en,zh}")


def test_parallel_patterns_and_folders_pair_files_by_name(place: Place) -> None:
    for name in ("a.en-US", "a.zh", "b.en-US", "b.zh", "en-US/c.txt", "zh/c.txt"):
        place.write(name, f"{name}\n")
    assert [columns(t) for t in place.tables("*.{en-US,zh}")] == [
        {"en-US": ["a.en-US"], "zh": ["a.zh"]}, {"en-US": ["b.en-US"], "zh": ["b.zh"]},
    ]  # fmt: skip
    (table,) = place.tables("{zh,en-US}", format="parallel")
    assert (table.name, columns(table)) == ("zh/c.txt", {"zh": ["zh/c.txt"], "en-US": ["en-US/c.txt"]})
    (place.folder / "b.zh").rename(place.folder / "c.zh")
    with pytest.raises(SourceError, match=r"same files on every side, found a.en-US, b.en-US and a.zh, c.zh"):
        place.tables("*.{en-US,zh}")


def test_parallel_sources_need_names_in_braces(place: Place) -> None:
    place.write("a.en", "a\n")
    for source, kind in (("a.en", "parallel"), ("a.{en,en}", "auto"), ("a.{en,}", "auto")):
        with pytest.raises(SourceError, match=r"expected two or more different names in braces, .*train.\{en,zh\}"):
            place.tables(source, format=kind)
    place.write("odd{1,2}.csv", "text\na\n")
    assert columns(place.tables("odd{1,2}.csv")[0]) == {"text": ["a"]}


def test_the_identity_of_parallel_files_follows_both(place: Place) -> None:
    for side in ("en", "zh"):
        place.write(f"a.{side}", "a\n")
    data = DataParams(source=str(place.folder / "a.{en,zh}"))
    before = data_identity(data)
    place.write("a.zh", "longer\n")
    assert data_identity(data) != before


# gettext

HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
CATALOGUE = (
    HEADER
    + """
#. a note
#: a.py:1
msgctxt "menu"
msgid "Open"
msgstr "打开"

msgid ""
"Two "
"lines\\n"
msgstr "两\u2028行\\n"

#, python-format
msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d 个文件"
msgstr[1] "%d 些文件"

msgid "%d dog"
msgid_plural "%d dogs"
msgstr[0] "%d 条狗"

#, fuzzy
msgid "Close"
msgstr "打开"

msgid "Untranslated"
msgstr ""

#~ msgid "Old"
#~ msgstr "旧"
"""
)
PAIRS = {
    "source": ["Open", "Two lines\n", "%d file", "%d files", "%d dog"],
    "target": ["打开", "两\u2028行\n", "%d 个文件", "%d 些文件", "%d 条狗"],
    "context": ["menu", None, None, None, None],
}


def test_po(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="apf"):
        table = place.read("zh.po", CATALOGUE)
    assert columns(table) == PAIRS
    assert (table.numbers, table.rejected) == ([8, 11, 17, 18, 22], [])
    assert caplog.messages == ["zh.po: left out 3 messages that are untranslated, fuzzy or obsolete"]


def test_po_in_the_encoding_it_declares(place: Place) -> None:
    text = CATALOGUE.replace("UTF-8", "GB18030").encode("gb18030")
    assert columns(place.read("a.po", text)) == PAIRS
    assert columns(place.read("b.po", text, encoding="gb18030")) == PAIRS
    with pytest.raises(DataError, match=r"c.po: expected text in UTF-8, found byte 0xff"):
        place.read("c.po", CATALOGUE.encode() + b'\nmsgid "a"\nmsgstr "\xff"\n')


def test_po_messages_that_cannot_be_read(place: Place) -> None:
    before = 'msgid "first"\nmsgstr "一"\n\n# two quotes\nmsgid "a "quote""\nmsgstr "甲"\n\n'
    after = '\nmsgid "open\nmsgstr "开"\n\nmsgstr "alone"\n\nwhat?\n\nmsgid "z"\nmsgstr "末"\n'
    table = place.read("a.po", before + CATALOGUE + after)
    found = columns(table)
    assert found["source"] == ["first", *PAIRS["source"], "z"]
    assert found["target"] == ["一", *PAIRS["target"], "末"]
    assert rejected(table) == [
        (4, "unescaped double quote found"),
        (43, "a quotation mark that is not closed"),
        (46, "a line that is not part of a message"),
        (48, "a line that is not part of a message"),
    ]
    assert table.numbers[:2] + table.numbers[-1:] == [1, 15, 50]


def test_mo(place: Place) -> None:
    import polib

    place.folder.mkdir()
    path = place.folder / "zh.mo"
    polib.pofile(str(place.write("zh.po", CATALOGUE))).save_as_mofile(str(path))
    (table,) = place.tables("zh.mo")
    rows = sorted(zip(*columns(table).values(), strict=True), key=str)
    assert rows == sorted(zip(*PAIRS.values(), strict=True), key=str)
    assert table.numbers == [1, 2, 3, 4, 5]
    for content in (b"", path.read_bytes()[:60], b"no catalogue"):
        with pytest.raises(DataError, match=r"b.mo: expected a .mo catalogue, found .+. Compile it again"):
            place.read("b.mo", content)


def test_a_folder_of_catalogues(place: Place) -> None:
    for name in ("zh/LC_MESSAGES/a.po", "zh/LC_MESSAGES/a.mo", "zh/LC_MESSAGES/a.json", "zh_TW/a.po", "setup.cfg"):
        place.write(name, CATALOGUE)
    for kind in ("auto", "gettext"):
        tables = place.tables("", format=kind)
        assert [t.name for t in tables] == ["LC_MESSAGES/a.po", "zh_TW/a.po"]
        assert [columns(t) for t in tables] == [PAIRS] * 2
    with pytest.raises(SourceError, match=r"expected files ending in .*, found setup.cfg"):
        place.tables("", format="csv")


# text

TEXT = "\n = One = \n \n first\n  line \n \n \n = = Part = = \r\nsecond\n = Two = \n第三\u2028\n"


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (
            "line",
            {
                2: " = One = ", 4: " first", 5: "  line ", 8: " = = Part = = ", 9: "second", 10: " = Two = ",
                11: "第三\u2028",
            },
        ),
        ("paragraph", {2: " = One = ", 4: " first\n  line ", 8: " = = Part = = \nsecond\n = Two = \n第三\u2028"}),
        ("heading", {2: " = One = \n \n first\n  line \n \n \n = = Part = = \nsecond", 10: " = Two = \n第三\u2028"}),
        ("file", {2: TEXT[1:-1].replace("\r", "")}),
    ],
)  # fmt: skip
def test_documents_of_plain_text(place: Place, documents: str, expected: dict[int, str]) -> None:
    table = place.read("a.txt", TEXT, documents=documents)
    assert (table.columns, dict(zip(table.numbers, table.values(0), strict=True))) == (("text",), expected)


def test_plain_text_is_paragraphs_and_has_to_be_asked_for(place: Place) -> None:
    assert place.read("a.txt", "a\n\nb", format="text").values(0) == ["a", "b"]
    place.write("b.txt", "c")
    assert [t.values(0) for t in place.tables("", format="text")] == [["a", "b"], ["c"]]
    assert [t.name for t in place.tables("*.txt", documents="file")] == ["a.txt", "b.txt"]
    with pytest.raises(DataError, match=r"found '.txt'. Write data.format, for example csv, .* text"):
        place.tables("a.txt")
    with pytest.raises(DataError, match=r"lines like ` = Title = `, found none. Write data.documents: paragraph"):
        place.tables("a.txt", documents="heading")
    with pytest.raises(ValidationError, match="`documents` is for plain text; the format is csv"):
        DataParams(source="a.txt", format="csv", documents="line")


# all


def test_which_files_of_a_folder_are_data(place: Place) -> None:
    for name in ("a.csv", "b.conll", "c.json", "d.txt", "e.po"):
        place.write(name, "x")

    def names(**data: Any) -> list[str]:
        return [path.name for path in data_files(DataParams(source=str(place.folder), **data))["all"]]

    assert names() == ["a.csv", "b.conll", "e.po"]
    assert names(documents="line") == ["a.csv", "b.conll", "d.txt", "e.po"]
    assert (names(format="squad"), names(format="json")) == (["c.json"], ["c.json"])
    assert (names(format="conll"), names(format="text")) == (["b.conll"], ["d.txt"])


def test_every_format_can_lie_in_an_archive_of_a_package(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tar(
        {
            "c/a.conll": b"a O\n", "c/a.en": b"a\n", "c/a.zh": "甲\n".encode(), "c/t.txt": b"a/n\n",
            "c/q.json": squad({"context": "a", "qas": [{"id": "1", "question": "?"}]}).encode(),
            "c/po/zh/a.po": CATALOGUE.encode(),
        }
    )  # fmt: skip
    wheel = make_zip({"p/corpora.tar.gz": inner})
    sha256 = hashlib.sha256(wheel).hexdigest()
    monkeypatch.setenv("APF_CACHE", str(place.folder / "cache"))
    place.write(f"cache/packages/{sha256}/p-1-py3-none-any.whl", wheel)

    def read(inside: str, **data: Any) -> tuple[str, ...]:
        (table,) = place.tables(f"pypi:p==1/p/corpora.tar.gz!/c/{inside}", sha256=sha256, **data)
        assert table.numbers
        return table.columns

    assert read("a.conll") == ("tokens", "tags")
    assert read("a.{en,zh}") == ("en", "zh")
    assert read("q.json")[:3] == ("id", "title", "context")
    assert read("po") == ("source", "target", "context")
    assert read("t.txt", format="word_tag") == ("tokens", "tags", "compounds")
    assert read("t.txt", documents="line") == ("text",)


def test_a_file_larger_than_the_memory_is_refused(place: Place) -> None:
    path = place.write("a.csv", "text\n")
    with path.open("r+b") as file:
        file.truncate(psutil.virtual_memory().total)  # a hole: takes no room on the disk
    with pytest.raises(DataError, match=r"a.csv: expected a file that fits in memory, found .* GiB to read it with"):
        place.tables("a.csv")


def test_nested_features_of_a_data_set_are_plain_values_with_names(place: Place) -> None:
    import datasets

    tag = datasets.ClassLabel(names=["O", "B-PER"])
    features = datasets.Features(
        {
            "tags": datasets.List(tag),
            "answers": {
                "text": datasets.List(datasets.Value("string")),
                "answer_start": datasets.List(datasets.Value("int32")),
            },
            "spans": datasets.List({"tag": tag, "start": datasets.Value("int32")}),
        }
    )
    row = {"tags": [1, 0], "answers": {"text": ["a"], "answer_start": [3]}, "spans": [{"tag": 1, "start": 0}]}
    empty = {"tags": None, "answers": {"text": [], "answer_start": []}, "spans": []}
    saved = datasets.Dataset.from_list([row, empty], features=features)
    saved.save_to_disk(str(place.folder / "saved"))
    assert columns(place.tables("saved")[0]) == {
        "tags": [["B-PER", "O"], None],
        "answers": [row["answers"], empty["answers"]],
        "spans": [[{"tag": "B-PER", "start": 0}], []],
    }
