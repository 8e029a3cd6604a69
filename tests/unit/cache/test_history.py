"""Why a call is not stored, told from what its own experiment has called; the work for it, counted."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apf_tasks.cache import fingerprints, store
from apf_tasks.cache.history import count, explain_miss, note, within_experiment
from apf_tasks.cache.store import Record

STAGE = "train_model"
_watching: list[list[str]] = []


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watching:
        _watching[-1].append(str(arguments[0]))


sys.addaudithook(_heard)  # the only way to hear of every open; it cannot be taken out again


@contextmanager
def opened(below: Path) -> Iterator[list[str]]:
    """The files below a folder that are opened within the block, filled in at its end."""
    heard: list[str] = []
    found: list[str] = []
    _watching.append(heard)
    try:
        yield found
    finally:
        _watching.pop()
        found += [path for path in heard if path.startswith(str(below)) and Path(path).is_file()]


def called(rate: float, more: dict[str, Any] | None = None) -> Record:
    inputs = {f"train.field{n}": n for n in range(20)} | {"train.learning_rate": rate} | (more or {})
    code = {f"apf_tasks.module{n}": f"{n:032x}" for n in range(20)}
    key = fingerprints.digest([STAGE, inputs])
    return Record(stage=STAGE, key=key, inputs=inputs, code=code, libraries={"torch": "2.8"}, seconds=1)


def put(record: Record, experiment: str) -> Record:
    """Store a result and note it, as a stage does."""
    folder = store.stage_folder(record.stage, record.key)
    folder.mkdir(parents=True)
    made = record.model_copy(update={"experiment": experiment})
    (folder / store.RECORD).write_text(made.model_dump_json(indent=1))
    with within_experiment(experiment):
        note(record)
    return record


def said(record: Record, experiment: str) -> str:
    with within_experiment(experiment):
        return explain_miss(record)


def test_an_experiment_is_explained_by_itself() -> None:
    assert said(called(1.0), "mine") == "first time"
    put(called(1.0), "another")
    put(called(5.0, {"train.field0": 7}), "mine")
    assert said(called(2.0), "mine") == "train.field0 7 → 0, train.learning_rate 5.0 → 2.0"
    assert said(called(2.0), "another") == "train.learning_rate 1.0 → 2.0"
    assert said(called(2.0), "a third") == "first time"


def test_a_result_of_another_experiment_that_was_reused_is_ones_own() -> None:
    shared = put(called(1.0), "another")
    with within_experiment("mine"):
        for _ in range(2):
            note(shared)
    assert said(called(2.0), "mine") == "train.learning_rate 1.0 → 2.0"
    files = list((store.root() / "stages" / ".history" / STAGE).iterdir())
    assert [file.read_text().count(shared.key) for file in files] == [1, 1]


def test_the_nearest_is_named_and_of_equally_near_ones_the_latest() -> None:
    for rate in (1.0, 2.0, 3.0):
        put(called(rate), "mine")
    put(called(4.0, {"train.field1": 0, "train.field2": 0}), "mine")
    assert said(called(9.0), "mine") == "train.learning_rate 3.0 → 9.0"
    assert said(called(2.0, {"train.field3": 9}), "mine") == "train.field3 3 → 9"
    many = called(9.0, {f"train.field{n}": -1 for n in range(10, 15)})
    assert said(many, "mine").endswith("and 3 more")


def test_splits_are_compared_by_their_name() -> None:
    put(called(1.0, {"name": "validation"}), "mine")
    assert said(called(1.0, {"name": "test"}), "mine") == "first time"


def test_deleted_and_damaged_results_are_told_from_changed_values() -> None:
    gone, there = put(called(1.0), "mine"), put(called(5.0, {"train.field0": 7}), "mine")
    shutil.rmtree(store.stage_folder(STAGE, gone.key))
    assert said(gone, "mine") == "its stored result was deleted"
    assert said(called(2.0), "mine") == "train.field0 7 → 0, train.learning_rate 5.0 → 2.0"  # the nearer is gone
    (store.stage_folder(STAGE, there.key) / store.RECORD).write_text("{")
    assert said(there, "mine") == "its stored result is damaged"
    assert said(called(2.0), "mine") == "its earlier results were deleted"


def test_the_history_is_made_again_when_it_is_missing_and_torn_lines_harm_nothing() -> None:
    put(called(1.0), "mine")
    put(called(2.0), "another")
    shutil.rmtree(store.root() / "stages" / ".history")
    assert said(called(9.0), "mine") == "train.learning_rate 1.0 → 9.0"
    for file in (store.root() / "stages" / ".history" / STAGE).iterdir():
        with file.open("a") as lines:
            lines.write("\n0123 ab")  # a crash in the middle of a line
    put(called(3.0), "mine")
    assert said(called(8.0, {"train.field1": 4}), "another") == "train.field1 1 → 4, train.learning_rate 2.0 → 8.0"
    assert said(called(9.0), "mine") == "train.learning_rate 3.0 → 9.0"


def test_a_store_that_cannot_be_written_is_explained_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    put(called(1.0), "mine")
    shutil.rmtree(store.root() / "stages" / ".history")
    locks = store.root() / "stages" / ".locks"
    shutil.rmtree(locks)
    locks.write_text("")  # root may write everywhere: a file where a folder has to be made stops it as well
    assert said(called(9.0), "mine") == "train.learning_rate 1.0 → 9.0"


def test_many_write_at_the_same_time_and_every_line_stays() -> None:
    records = [called(float(n)) for n in range(24)]
    threads = [
        threading.Thread(target=lambda part: [put(record, "mine") for record in part], args=(records[n::4],))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = (store.root() / "stages" / ".history" / STAGE).iterdir()
    keys = [line.split(" ")[0] for line in file.read_text().splitlines() if line]
    assert sorted(keys) == sorted(record.key for record in records)


def test_results_of_a_value_are_counted_once_and_only_while_they_are_there(mlruns: Path) -> None:
    first = put(called(1.0, {"content of test": "abc"}), "mine")
    put(called(2.0, {"content of test": "abc"}), "another")
    put(called(3.0, {"content of test": "def"}), "mine")
    with within_experiment("another"):
        note(first)
    with opened(mlruns) as files:
        assert count(STAGE, "content of test", "abc") == 2
    assert len(files) == 2
    shutil.rmtree(store.stage_folder(STAGE, first.key))
    assert count(STAGE, "content of test", "abc") == 1
    assert count("evaluate", "content of test", "abc") == 0


def test_the_work_does_not_grow_with_the_number_of_results(mlruns: Path) -> None:
    worked = []
    for start, stop in ((0, 5), (5, 300)):
        for n in range(start, stop):
            put(called(float(n)), "mine")
        with opened(mlruns) as files:
            assert "learning_rate" in said(called(-1.0), "mine")
        worked.append(len(files))
    assert worked == [2, 2]  # the lines of the experiment, and the record of the nearest
