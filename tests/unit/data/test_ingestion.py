"""Rows out of real files, clean and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from apf_tasks.artifacts import RawData
from apf_tasks.data.ingestion import ingest
from apf_tasks.errors import DataError, ParamsError, SourceError
from apf_tasks.params.data import DataParams
from apf_tasks.params.family import FamilyParams, family_params


class Place:
    """A folder of source files and the result of reading them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.out.mkdir()

    def write(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def ingest(self, source: str | dict[str, str], **data: Any) -> RawData:
        params = DataParams.model_validate({"source": source, **data})
        return ingest(self.out, params, FamilyParams(name="sentiment"))

    @property
    def rows(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "rows.parquet")

    @property
    def rejected(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "rejected.jsonl").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_plain_csv(place: Place) -> None:
    raw = place.ingest(place.write("a.csv", 'text,label\n"good, very",1\n\n"two\nlines",0\nNA,1\nnull,0\n'))
    assert place.rows.to_dict("list") == {
        "row_id": ["a.csv:2", "a.csv:4", "a.csv:6", "a.csv:7"],
        "text": ["good, very", "two\nlines", "NA", "null"],
        "label": ["1", "0", "1", "0"],
        "role": ["all"] * 4,
    }
    assert raw.rows == {"all": 4}
    assert raw.columns == ("row_id", "text", "label", "role")
    assert (raw.rejected_rows, raw.left_out_rows, raw.path) == (0, 0, place.out)
    assert place.rejected == []


def test_the_same_rows_are_the_same_bytes(place: Place) -> None:
    source = place.write("a.csv", "text,label\na,x\nb,y\n")
    first, content = place.ingest(source), (place.out / "rows.parquet").read_bytes()
    assert place.ingest(source) == first
    assert (place.out / "rows.parquet").read_bytes() == content
    place.write("a.csv", "text,label\na,x\nb,x\n")
    assert place.ingest(source).fingerprint != first.fingerprint


def test_headerless_tsv_with_ranges_and_lone_quotes(place: Place) -> None:
    lines = [
        '1\t2.5\t"a lone quote',
        "2\t-0.5\tdull",
        "3\t0.2\tso so",
        "4\tn/a\tno number",
        '5\t4\t5" of joy',
        "6\t\tnone",
    ]
    raw = place.ingest(
        place.write("ratings.txt", "\r\n".join(lines)),
        header=False, columns={"text": 2, "label": 1}, max_rejected=0.5,
        labels={"positive": [0.5, 4], "negative": [-4, -0.5]},
    )  # fmt: skip
    assert place.rows["text"].tolist() == ['"a lone quote', "dull", '5" of joy']
    assert place.rows["label"].tolist() == ["positive", "negative", "positive"]
    assert raw.left_out_rows == 1
    assert place.rejected == [
        {"file": "ratings.txt", "row": 4, "reason": "label is not a number"},
        {"file": "ratings.txt", "row": 6, "reason": "no label"},
    ]


def test_label_values(place: Place) -> None:
    source = place.write("a.csv", "text,label\na,1\nb,0\nc,2\n")
    raw = place.ingest(source, labels={"good": 1, "bad": "0"})
    assert place.rows["label"].tolist() == ["good", "bad"]
    assert raw.left_out_rows == 1
    with pytest.raises(
        DataError, match=r"data.labels, 'good': expected rows with 'pos', found none; the values are '1'"
    ):
        place.ingest(source, labels={"good": "pos", "bad": 0})


def test_a_gap_does_not_turn_labels_into_fractions(place: Place) -> None:
    pd.DataFrame({"text": ["a", "b", "c"], "label": [1, None, 0]}).to_parquet(place.folder / "a.parquet")
    place.ingest(str(place.folder / "a.parquet"), max_rejected=0.5)
    assert place.rows["label"].tolist() == ["1", "0"]
    assert place.rejected == [{"file": "a.parquet", "row": 2, "reason": "no label"}]


def test_not_a_number_is_no_label(place: Place) -> None:
    place.ingest(place.write("a.jsonl", '{"text": "a", "label": NaN}\n{"text": "b", "label": 1.0}\n'), max_rejected=0.5)
    assert place.rows["label"].tolist() == ["1"]
    assert place.rejected[0] == {"file": "a.jsonl", "row": 1, "reason": "no label"}


def test_jsonl_with_broken_lines(place: Place) -> None:
    lines = [
        '{"text": "fine\\u2028still", "label": "x"}', '{"text": "cut', "", "[1]",
        '{"text": "half \\ud83d", "label": "x"}', '{"text": "whole \\ud83d\\ude00", "label": "y"}', '{"label": "x"}',
    ]  # fmt: skip
    place.ingest(place.write("a.jsonl", "\n".join(lines)), max_rejected=0.9)
    assert place.rows["row_id"].tolist() == ["a.jsonl:1", "a.jsonl:6"]
    assert place.rows["text"].tolist() == ["fine\u2028still", "whole 😀"]
    assert [(r["row"], r["reason"].split(":")[0]) for r in place.rejected] == [
        (2, "not valid JSON"), (4, "not a JSON object"), (5, "half of a surrogate pair"), (7, "empty text"),
    ]  # fmt: skip


def test_a_json_array_is_answered_with_what_to_do(place: Place) -> None:
    with pytest.raises(DataError, match="expected one JSON object per line, found one JSON array"):
        place.ingest(place.write("a.jsonl", '[{"text": "a"}]'), format="jsonl")


def test_csv_rows_with_other_field_counts(place: Place) -> None:
    place.ingest(place.write("a.csv", "text,label\na,x\nb\nc,x,y\nd,y\n"), max_rejected=0.5)
    assert place.rows["text"].tolist() == ["a", "d"]
    assert place.rejected == [
        {"file": "a.csv", "row": 3, "reason": "1 fields instead of 2"},
        {"file": "a.csv", "row": 4, "reason": "3 fields instead of 2"},
    ]


def test_an_open_quote_does_not_swallow_the_rows_after_it(place: Place) -> None:
    place.ingest(place.write("a.csv", 'text,label\na,x\n"open,x\nb,y\n"q",y\n"last,x\nc,x\n'), max_rejected=0.5)
    assert place.rows["text"].tolist() == ["a", "b", "q", "c"]
    assert [(r["row"], r["reason"].split(":")[0]) for r in place.rejected] == [(3, "quoting"), (6, "quoting")]


def test_a_field_as_long_as_a_book(place: Place) -> None:
    place.ingest(place.write("a.csv", f"text,label\n{'word ' * 60_000},x\n"))
    assert len(place.rows["text"][0]) == 300_000


def test_gb18030_and_a_byte_order_mark(place: Place) -> None:
    content = "text,label\n这家酒店的房间很干净，服务也不错。,1\n电影太无聊了，看到一半就睡着了,0\n"
    for encoding in ("gb18030", "utf-8-sig"):
        place.ingest(place.write("a.csv", content.encode(encoding)))
        assert place.rows["text"].tolist() == ["这家酒店的房间很干净，服务也不错。", "电影太无聊了，看到一半就睡着了"]
    with pytest.raises(DataError, match="expected text in utf-8"):
        place.ingest(place.write("a.csv", content.encode("gb18030")), encoding="utf-8")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(place: Place, content: str) -> None:
    with pytest.raises(DataError, match=r"a.csv: expected rows, found an empty file"):
        place.ingest(place.write("a.csv", content))


def test_a_header_without_rows(place: Place) -> None:
    with pytest.raises(DataError, match="expected rows, found none"):
        place.ingest(place.write("a.csv", "text,label\n"), labels={"good": 1})


def test_a_missing_column_is_answered_with_the_columns_there_are(place: Place) -> None:
    source = place.write("a.csv", "texts,label\na,x\n")
    with pytest.raises(DataError) as caught:
        place.ingest(source)
    assert str(caught.value) == (
        "a.csv: expected a column 'text' (the text to classify), found the columns texts, label. "
        "Write data.columns: {text: texts}."
    )
    with pytest.raises(DataError, match="expected a column 5"):
        place.ingest(source, columns={"text": 5})
    with pytest.raises(ParamsError, match=r"data.columns: expected only text, label, .*Did you mean text\?"):
        place.ingest(source, columns={"tekst": "texts"})
    with pytest.raises(DataError, match=r"expected one column 'text', found several. .*\{text: 0\}"):
        place.ingest(place.write("b.csv", "text,text,label\na,b,x\n"))


def test_too_many_unusable_rows_stop_and_leave_their_list(place: Place) -> None:
    source = place.write("a.csv", "text,label\n" + "good,x\n" * 6 + ",x\n,y\nbad,\n ,x\n")
    with pytest.raises(DataError) as caught:
        place.ingest(source, max_rejected=0.3)
    assert "at most 30.0% unusable rows (data.max_rejected), found 4 of 10 (empty text: 3, no label: 1)" in str(
        caught.value
    )
    assert "first at a.csv:8, a.csv:9, a.csv:10." in str(caught.value)
    assert f"The complete list is {place.out / 'rejected.jsonl'}" in str(caught.value)
    assert len(place.rejected) == 4
    assert place.ingest(source, max_rejected=0.4).rejected_rows == 4


def test_max_rows_is_a_stable_choice(place: Place) -> None:
    rows = [f"text number {i},{i % 2}" for i in range(50)]
    source = place.write("a.csv", "text,label\n" + "\n".join(rows))
    raw = place.ingest(source, max_rows=10)
    before = set(place.rows["text"])
    assert (raw.rows, raw.left_out_rows) == ({"all": 10}, 40)
    place.write("a.csv", "text,label\n" + "\n".join([*(f"new {i},1" for i in range(5)), *reversed(rows)]))
    place.ingest(source, max_rows=10)
    assert len(before & set(place.rows["text"])) >= 10 - 5
    others = [text for text in place.rows["text"] if "number" in text and text not in before]
    assert others == [], "of the old rows none that was not chosen before"


def test_group_time_and_id(place: Place) -> None:
    source = place.write("a.csv", "key,text,label,author,time\nk1,a,x,7,10\nk2,b,y,,9\nk3,c,y,8,8\n")
    raw = place.ingest(source, columns={"id": "key", "group": "author"}, max_rejected=0.5)
    assert raw.columns == ("row_id", "text", "label", "group", "time", "role")
    assert place.rows["row_id"].tolist() == ["k1", "k3"]
    assert place.rows["group"].tolist() == ["7", "8"]
    assert place.rows["time"].tolist() == [10.0, 8.0]
    assert place.rejected == [{"file": "a.csv", "row": 3, "reason": "no group"}]
    place.write("a.csv", "key,text,label\nk1,a,x\nk1,b,y\n")
    with pytest.raises(DataError, match=r"expected a different id in every row, found 'k1' again \(1 repeated\)"):
        place.ingest(source, columns={"id": "key"})


def test_dates_are_text_that_sorts(place: Place) -> None:
    frame = pd.DataFrame(
        {"text": ["a", "b"], "label": ["x", "y"], "time": pd.to_datetime(["2024-01-02", "2023-05-06"])}
    )
    frame.to_parquet(place.folder / "a.parquet")
    place.ingest(str(place.folder / "a.parquet"))
    assert place.rows["time"].tolist() == ["2024-01-02T00:00:00", "2023-05-06T00:00:00"]


def test_published_splits_and_files_of_the_same_name(place: Place) -> None:
    for role in ("train", "test"):
        (place.folder / role).mkdir()
    sources = {role: place.write(f"{role}/rows.csv", f"text,label\n{role},x\n") for role in ("train", "test")}
    raw = place.ingest(sources)
    assert raw.rows == {"train": 1, "test": 1}
    assert place.rows["row_id"].tolist() == ["train/rows.csv:2", "test/rows.csv:2"]


def test_damaged_parquet_and_unknown_format(place: Place) -> None:
    with pytest.raises(DataError, match=r"a.parquet: expected a Parquet file that can be read"):
        place.ingest(place.write("a.parquet", b"PAR1 no more"))
    with pytest.raises(DataError, match=r"expected a name ending in .csv, .*found '.dat'. Write data.format"):
        place.ingest(place.write("a.dat", "text,label\n"))
    assert place.ingest(place.write("a.dat", "text,label\na,x\n"), format="csv").rows == {"all": 1}


def test_a_folder_saved_by_datasets(place: Place) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    parts = {
        name: datasets.Dataset.from_dict(
            {"text": [f"{name} {i}" for i in range(2)], "label": [i, 1]}, features=features
        )
        for i, name in enumerate(("train", "dev", "unsupervised"), start=-1)
    }
    datasets.DatasetDict(parts).save_to_disk(str(place.folder / "saved"))
    raw = place.ingest(str(place.folder / "saved"), max_rejected=0.3)
    assert raw.rows == {"train": 1, "validation": 2}
    assert place.rows["label"].tolist() == ["good", "bad", "good"]
    assert place.rejected == [{"file": "saved/train", "row": 1, "reason": "no label"}]
    one = {"train": str(place.folder / "saved"), "test": place.write("t.csv", "text,label\na,good\n")}
    assert place.ingest(one, max_rejected=0.4).rows == {"train": 1, "test": 1}
    with pytest.raises(DataError, match="data set saved: expected a split called test, found train, dev, unsupervised"):
        place.ingest({"test": str(place.folder / "saved")})


def test_a_hub_data_set_from_the_cache_while_the_hub_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place.folder / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", place.folder / "datasets")
    with pytest.raises(SourceError, match=r"hub dataset some/rows: expected an answer .*works without a hub\.$"):
        place.ingest("hub:some/rows")
    repository = place.folder / "hub" / "datasets--some--rows"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "train.csv").write_text("text,label\na,x\nb,y\n")
    (snapshot / "test.csv").write_text("text,label\nc,x\n")
    assert place.ingest("hub:some/rows").rows == {"train": 2, "test": 1}
    assert place.rows["row_id"].tolist() == ["some/rows/train:1", "some/rows/train:2", "some/rows/test:1"]


def test_the_file_name_and_a_mapping_are_columns_too(place: Place) -> None:
    place.write("pos.jsonl", '{"review": {"en": "warm and kind", "zh": "温暖"}}\n')
    place.write("neg.jsonl", '{"review": {"en": "dull and cold", "zh": null}}\n')
    columns, labels = {"text": "review.en", "label": "$file"}, {"good": "pos.jsonl", "bad": "neg.jsonl"}
    place.ingest(str(place.folder / "*.jsonl"), columns=columns, labels=labels)
    assert place.rows[["text", "label"]].to_dict("list") == {
        "text": ["dull and cold", "warm and kind"],
        "label": ["bad", "good"],
    }
    with pytest.raises(DataError, match="empty text: 1"):
        place.ingest(str(place.folder / "*.jsonl"), columns=columns | {"text": "review.zh"}, labels=labels)


def test_a_template_joins_columns_and_drops_lines_without_a_cell(place: Place) -> None:
    source = place.write("a.csv", "subject,body,label\nHello,world,x\n,only body,y\nonly subject,,x\n,,y\n")
    raw = place.ingest(source, columns={"text": "[{subject}]\n{body}"}, max_rejected=0.5)
    assert place.rows["text"].tolist() == ["[Hello]\nworld", "only body", "[only subject]"]
    assert raw.rejected_rows == 1
    with pytest.raises(DataError, match=r"a column 'topic' .*, found the columns subject, body, label"):
        place.ingest(source, columns={"text": "{topic}: {body}"})


def test_columns_of_0_and_1_become_labels(place: Place) -> None:
    source = place.write("a.csv", "text,rude,spam\na,1,0\nb,0,0\nc,yes,TRUE\nd,2,0\n")
    params = DataParams(source=source, columns={"labels": ("rude", "spam")}, max_rejected=0.5)
    ingest(place.out, params, family_params("sentiment")(name="sentiment", target="labels"))
    assert [list(labels) for labels in place.rows["labels"]] == [["rude"], [], ["rude", "spam"]]
    assert [r["row"] for r in place.rejected] == [5]


def test_values_of_labels_are_merged_and_two_numbers_are_a_range(place: Place) -> None:
    source = place.write("a.csv", "text,label\na,Bill\nb,bill\nc,BILL\nd,other\n")
    raw = place.ingest(source, labels={"Bill": ["Bill", "bill", "BILL"]})
    assert (place.rows["label"].tolist(), raw.left_out_rows) == (["Bill"] * 3, 1)
    source = place.write("b.csv", "text,label\na,1\nb,2\nc,3\n")
    place.ingest(source, labels={"low": [1, 2], "high": ["3", "4"]})
    assert place.rows["label"].tolist() == ["low", "low", "high"]


def test_the_same_number_written_in_two_ways_is_one_label(place: Place) -> None:
    raw = place.ingest(place.write("a.csv", "text,label\na,0\nb,0.0\nc,1.00\nd,1\ne,2.0\n"))
    assert place.rows["label"].tolist() == ["0", "0", "1", "1", "2.0"]
    assert raw.notes == {"labels with a decimal point, merged with the same number without one": 2}


def test_labels_that_look_alike_are_told(place: Place) -> None:
    raw = place.ingest(place.write("a.csv", "text,label\na,Good\nb,good\nc,ｇｏｏｄ\nd,bad\n"))
    assert place.rows["label"].tolist() == ["Good", "good", "ｇｏｏｄ", "bad"]
    ((what, count),) = raw.notes.items()
    assert (count, "data.labels: {Good: [Good, good, ｇｏｏｄ]} merges them" in what) == (3, True)


def test_no_agreement_on_a_gold_label_is_no_label(place: Place) -> None:
    source = place.write("a.csv", "text,gold_label\na,yes\nb,-\nc,no\n")
    raw = place.ingest(source, columns={"label": "gold_label"})
    assert (place.rows["label"].tolist(), raw.left_out_rows, raw.rejected_rows) == (["yes", "no"], 1, 0)
    place.ingest(place.write("b.csv", "text,label\na,+\nb,-\n"))
    assert place.rows["label"].tolist() == ["+", "-"]


def test_all_that_a_source_holds_is_accounted_for(place: Place) -> None:
    raw = place.ingest(place.write("a.csv", "text,label\na,x\ntext,label\n,\nb,y\n,z\n"), max_rejected=0.5)
    assert (raw.rows, raw.rejected_rows, raw.left_out_rows) == ({"all": 2}, 1, 2)
    assert raw.notes == {"the header once more": 1, "an empty line of the table": 1}
