"""What may stand on which side, on rows small enough to check by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from apf_tasks.artifacts import RawData, Split
from apf_tasks.data.splitting import comparable_texts, split_rows
from apf_tasks.errors import DataError, UntrainableDataError
from apf_tasks.params.data import SplitParams
from apf_tasks.params.family import FamilyParams

SENTIMENT = FamilyParams(name="sentiment")
METHODS = ["hash", "random", "stratified", "group", "time"]
ENGLISH = "The film takes its time to begin but the last hour is among the best of the whole year, number "
CHINESE = "这家酒店的位置非常好，房间也很干净，服务员态度热情，早餐种类丰富，下次来还会选择这里，编号"


def split(
    folder: Path, rows: list[dict[str, Any]], family: FamilyParams = SENTIMENT, **settings: Any
) -> tuple[Split, dict[str, pd.DataFrame]]:
    """The handle and the three tables."""
    folder.mkdir(exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.insert(0, "row_id", [f"rows.csv:{i}" for i in range(len(frame))])
    frame.assign(role=frame.get("role", "all")).to_parquet(folder / "rows.parquet", index=False)
    raw = RawData(
        path=folder,
        fingerprint="0",
        source="rows.csv",
        rows={"all": len(frame)},
        columns=("text", "label"),
        rejected_rows=0,
        left_out_rows=0,
    )
    handle = split_rows(folder, raw, SplitParams(**settings), family)
    return handle, {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "validation", "test")}


def distinct_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of random letters: no two are alike. Ten groups; one row a day."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    random = np.random.default_rng(seed)
    days = pd.date_range("2020-01-01", periods=count).strftime("%Y-%m-%d")
    return [
        {"text": "".join(random.choice(letters, 40)), "label": "ab"[i % 2], "group": f"g{i % 10}", "time": days[i]}
        for i in range(count)
    ]


def role_of(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    return {text: name for name, table in tables.items() for text in table["text"]}


def leaks(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "leaks.json").read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize("method", METHODS)
def test_every_row_has_one_role_and_keeps_its_order(tmp_path: Path, method: str) -> None:
    rows = distinct_rows(300)
    handle, tables = split(tmp_path, rows, method=method)
    assert sum(handle.rows.values()) == 300
    assert handle.rows == {name: len(table) for name, table in tables.items()}
    assert 15 <= handle.rows["test"] <= 45
    assert 15 <= handle.rows["validation"] <= 45
    assert handle.label_names == ("a", "b")
    position = {row["text"]: i for i, row in enumerate(rows)}
    for name, table in tables.items():
        places = table["text"].map(position).tolist()
        assert places == sorted(places), f"rows of {name} in the order of the source"
    again, _ = split(tmp_path / "again", rows, method=method)
    assert again.fingerprint == handle.fingerprint


def test_hash_roles_stay_when_data_grows(tmp_path: Path) -> None:
    rows = distinct_rows(600)
    _, before = split(tmp_path / "before", rows[:300])
    _, after = split(tmp_path / "after", rows[300:] + rows[:300])
    roles = role_of(after)
    moved = {text: (role, roles[text]) for text, role in role_of(before).items() if roles[text] != role}
    assert moved == {}, "rows keep their role"


def test_hash_does_not_depend_on_the_seed_and_random_does(tmp_path: Path) -> None:
    rows = distinct_rows(200)
    prints = {
        (method, seed): split(tmp_path / f"{method}{seed}", rows, method=method, seed=seed)[0].fingerprint
        for method in ("hash", "random")
        for seed in (0, 1)
    }
    assert prints["hash", 0] == prints["hash", 1]
    assert prints["random", 0] != prints["random", 1]


def test_texts_are_compared_without_case_width_and_white_space() -> None:
    rows = pd.DataFrame({"text": ["Good\n  film", "ＧＯＯＤ film ", "straße"], "more": ["x", "X", "y"]})
    assert comparable_texts(rows, ("text",)).tolist() == ["good film", "good film", "strasse"]
    assert comparable_texts(rows, ("text", "more")).tolist() == ["good film\x1fx", "good film\x1fx", "strasse\x1fy"]


def test_duplicates_leave_but_the_first(tmp_path: Path) -> None:
    rows = distinct_rows(100)
    copy = rows[7] | {"text": "  " + rows[7]["text"].upper()}
    handle, tables = split(tmp_path, [*rows, copy, copy])
    assert handle.dropped_duplicates == 2
    assert sum(handle.rows.values()) == 100
    assert rows[7]["text"] in role_of(tables)
    section = leaks(tmp_path)["exact_duplicates"]
    assert section["count"] == 2
    assert section["examples"][0]["left_out"] == "rows.csv:100"
    assert section["examples"][0]["kept"] == "rows.csv:7"


def test_contradictions_leave_with_all_their_rows(tmp_path: Path) -> None:
    rows = distinct_rows(100)
    handle, tables = split(tmp_path, [*rows, rows[7], rows[7] | {"label": "a"}])
    assert rows[7]["label"] == "b"
    assert handle.dropped_conflicts == 3
    assert handle.dropped_duplicates == 0
    assert rows[7]["text"] not in role_of(tables)
    example = leaks(tmp_path)["conflicting_labels"]["examples"][0]
    assert [(row["row"], row["label"]) for row in example["rows"]] == [
        ("rows.csv:7", "b"),
        ("rows.csv:100", "b"),
        ("rows.csv:101", "a"),
    ]


@pytest.mark.parametrize("sentence", [ENGLISH, CHINESE])
@pytest.mark.parametrize("method", METHODS)
def test_near_duplicates_never_straddle(tmp_path: Path, method: str, sentence: str) -> None:
    family = [
        {"text": f"{sentence}{i}", "label": "a", "group": f"n{i}", "time": f"2020-03-{i + 1:02}"} for i in range(12)
    ]
    handle, tables = split(tmp_path, family + distinct_rows(200), method=method)
    assert handle.near_duplicate_groups == 1
    sides = {name for text, name in role_of(tables).items() if text.startswith(sentence)}
    assert len(sides) == 1
    kept = sum(table["text"].str.startswith(sentence).sum() for table in tables.values())
    assert kept == 12 - handle.dropped_near_duplicates
    assert (handle.dropped_near_duplicates > 0) == (method == "hash")
    assert leaks(tmp_path)["near_duplicate_groups"]["examples"][0]["rows"] == 12


def test_near_duplicates_leave_the_side_that_matters_less(tmp_path: Path) -> None:
    rows = distinct_rows(200)
    one, other = {"text": ENGLISH + "1", "label": "a"}, {"text": ENGLISH + "2", "label": "a"}
    published = [row | {"role": role} for row, role in zip(rows, ["train"] * 100 + ["validation"] * 100, strict=True)]
    rows = [
        *published,
        one | {"role": "train"},
        other | {"role": "validation"},
        {"text": CHINESE, "label": "b", "role": "test"},
    ]
    handle, tables = split(tmp_path, rows)
    assert handle.rows == {"train": 100, "validation": 101, "test": 1}
    assert handle.dropped_near_duplicates == 1
    assert other["text"] in set(tables["validation"]["text"])
    example = leaks(tmp_path)["near_duplicates_across_sides"]["examples"][0]
    assert (example["left_out"]["role"], example["kept"]["role"]) == ("train", "validation")
    assert 0.8 <= example["similarity"] < 1


def test_near_duplicates_can_be_left_alone(tmp_path: Path) -> None:
    family = [{"text": f"{ENGLISH}{i}", "label": "a"} for i in range(12)]
    handle, _ = split(tmp_path, family + distinct_rows(100), near_duplicate_similarity=None)
    assert handle.near_duplicate_groups == handle.dropped_near_duplicates == 0
    assert sum(handle.rows.values()) == 112


def test_groups_stay_whole(tmp_path: Path) -> None:
    _, tables = split(tmp_path, distinct_rows(200), method="group")
    groups = [set(table["group"]) for table in tables.values()]
    assert sum(map(len, groups)) == 10
    assert set() not in groups, "a group in each split"


def test_rows_without_a_group_are_not_one_group(tmp_path: Path) -> None:
    handle, _ = split(tmp_path, [row | {"group": None} for row in distinct_rows(100)], method="group")
    assert handle.rows == {"train": 80, "validation": 10, "test": 10}


def test_time_puts_the_newest_in_test_and_ties_on_one_side(tmp_path: Path) -> None:
    rows = distinct_rows(100)
    for row in rows[85:96]:
        row["time"] = rows[85]["time"]
    handle, tables = split(tmp_path, rows, method="time")
    assert tables["train"]["time"].max() < tables["validation"]["time"].min()
    assert tables["validation"]["time"].max() < tables["test"]["time"].min()
    assert handle.rows == {"train": 80, "validation": 5, "test": 15}  # the middle of the tie is among the newest tenth
    by_number, _ = split(tmp_path / "n", [row | {"time": i // 5} for i, row in enumerate(rows)], method="time")
    assert by_number.rows == {"train": 80, "validation": 10, "test": 10}


def test_stratified_keeps_the_shares_of_the_labels(tmp_path: Path) -> None:
    rows = [row | {"label": "rare" if i % 10 == 0 else "common"} for i, row in enumerate(distinct_rows(200))]
    rows[5]["label"] = "once"
    handle, tables = split(tmp_path, rows, method="stratified")
    assert [int((tables[name]["label"] == "rare").sum()) for name in ("train", "validation", "test")] == [16, 2, 2]
    assert "once" in handle.label_names


def test_published_roles_stay_and_missing_ones_come_out_of_train(tmp_path: Path) -> None:
    rows = distinct_rows(300)
    published = [row | {"role": "test" if i < 50 else "train"} for i, row in enumerate(rows)]
    handle, tables = split(tmp_path, published, method="random")
    assert tables["test"]["text"].tolist() == [row["text"] for row in rows[:50]]
    assert handle.rows == {"train": 225, "validation": 25, "test": 50}
    everything = [
        row | {"role": "test" if i < 50 else "validation" if i < 90 else "train"} for i, row in enumerate(rows)
    ]
    handle, _ = split(tmp_path, everything)
    assert handle.rows == {"train": 210, "validation": 40, "test": 50}


def test_published_test_rows_win_over_train_rows(tmp_path: Path) -> None:
    rows = [row | {"role": "train"} for row in distinct_rows(200)]
    rows += [rows[0] | {"role": "test"}, rows[1] | {"role": "test", "label": "a"}]
    rows += [rows[2] | {"role": "test"}, rows[2] | {"role": "test", "label": "b"}]
    handle, tables = split(tmp_path, rows)
    assert tables["test"]["text"].tolist() == [rows[0]["text"], rows[1]["text"]]
    assert tables["test"]["label"].tolist() == ["a", "a"]
    assert handle.dropped_duplicates == 1  # row 0 leaves train
    assert handle.dropped_conflicts == 4  # row 1 leaves train; row 2 leaves both, test contradicts itself
    assert sum(handle.rows.values()) == 199


def test_an_empty_split_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UntrainableDataError, match=r"at least one row in (validation|test), found train .*At least 10 rows"
    ):
        split(tmp_path, distinct_rows(3))
    with pytest.raises(UntrainableDataError, match=r"test, found .*Set split.test_fraction above 0"):
        split(tmp_path, distinct_rows(100), test_fraction=0)
    same_day = [row | {"time": "2020-01-01"} for row in distinct_rows(100)]
    with pytest.raises(UntrainableDataError, match=r"validation, found train 100, validation 0, test 0.*equal times"):
        split(tmp_path, same_day, method="time")
    rows = [row | {"role": "train"} for row in distinct_rows(100)]
    contradiction = [{"text": "so so", "label": label, "role": "test"} for label in "ab"]
    with pytest.raises(
        UntrainableDataError, match="All rows removed as duplicates or contradictions: check the test source"
    ):
        split(tmp_path, rows + contradiction)


def test_one_label_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UntrainableDataError, match=r"expected two labels or more, found only 'a'. Add rows with another label"
    ):
        split(tmp_path, [row | {"label": "a"} for row in distinct_rows(100)])


def test_a_label_that_train_lacks_is_said(tmp_path: Path) -> None:
    rows = [row | {"role": "train"} for row in distinct_rows(100)]
    test = [{"text": f"{word} word", "label": "c", "role": "test"} for word in ("first", "second")]
    with pytest.raises(
        UntrainableDataError,
        match=r"split, test: expected only labels that train has: a, b, found 'c' \(2 rows\)"
        r"\. Add train rows with this label, or leave it out of data\.labels\.",
    ):
        split(tmp_path, rows + test)


def test_an_entity_type_that_train_lacks_is_left_out_where_types_are_named(tmp_path: Path) -> None:
    types = ["LOC"] * 8 + ["DATE"]
    rows = [
        {"text": f"{where} is far", "tokens": [where, "is", "far"], "tags": [f"B-{name}", "O", "O"], "role": role}
        for where, name, role in zip("ABCDEFGHI", types, ["train"] * 7 + ["validation", "test"], strict=True)
    ]
    do = (
        r"found 'DATE' \(1 rows\)\. Add train rows with this label, or name only the other types in family\.entity_tags"
    )
    with pytest.raises(UntrainableDataError, match=do):
        split(tmp_path, rows, FamilyParams(name="ner"), near_duplicate_similarity=None)


@pytest.mark.parametrize("method", ["group", "time"])
def test_a_missing_column_is_said(tmp_path: Path, method: str) -> None:
    rows = [{"text": row["text"], "label": row["label"]} for row in distinct_rows(50)]
    with pytest.raises(DataError, match=f"a column `{method}`, found only text, label. Map it under data.columns"):
        split(tmp_path, rows, method=method)


def test_a_time_that_is_none_is_said(tmp_path: Path) -> None:
    rows = distinct_rows(50)
    rows[3]["time"] = "last spring"
    with pytest.raises(DataError, match=r"found 'last spring' in row rows.csv:3 \(1 such rows\). Write times as"):
        split(tmp_path, rows, method="time")
