"""Stages as cached Prefect tasks: reuse, explanations, damage, crashes, two at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from prefect import flow

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.cache.history import within_experiment
from apf_tasks.cache.journal import Pending, current_label, journal
from apf_tasks.cache.stage import stage
from apf_tasks.errors import StoreError
from apf_tasks.params.data import SplitParams

pytestmark = pytest.mark.usefixtures("prefect_server")


class Text(Artifact):
    """A toy artifact."""

    words: int


calls: list[str] = []


@stage(code=["cache.store"])
def write(out: Path, text: str, split: SplitParams) -> Text:
    """Write a text."""
    calls.append(text)
    if text == "slow":
        time.sleep(1.0)
    if text == "fails":
        (out / "half.txt").write_text("half")
        raise ValueError("no")
    (out / "text.txt").write_text(text)
    return Text(path=out, fingerprint=fingerprint_files(out, ["text.txt"]), words=len(text.split()))


@stage(code=["cache.store"])
def count(out: Path, text: Text) -> Text:
    """Count its words again."""
    calls.append("count")
    (out / "count.txt").write_text(str(text.words))
    return Text(path=out, fingerprint=fingerprint_files(out, ["count.txt"]), words=text.words)


@flow
def pipeline(text: str, seed: int = 0) -> Text:
    return count(write(text, SplitParams(seed=seed)))


@pytest.fixture(autouse=True)
def _forget() -> None:
    calls.clear()


def outcome(text: str, seed: int = 0) -> list[tuple[str, str, str]]:
    with journal() as done:
        pipeline(text, seed)
    return [(v.stage, v.status, v.reason) for v in done.stage_runs]


def test_a_second_flow_run_executes_nothing() -> None:
    assert outcome("a b") == [("write", "ran", "first time"), ("count", "ran", "first time")]
    assert outcome("a b") == [("write", "reused", ""), ("count", "reused", "")]
    assert calls == ["a b", "count"]


def test_a_miss_says_which_value_changed_and_equal_content_stops_the_chain() -> None:
    outcome("a b", seed=1)
    # another seed writes the same text, so what depends on the text alone is reused
    assert outcome("a b", seed=2) == [("write", "ran", "split.seed 1 → 2"), ("count", "reused", "")]


def test_another_experiment_is_not_compared_with_this_one() -> None:
    outcome("a b", seed=1)
    with within_experiment("another"):
        assert outcome("a b", seed=2)[0] == ("write", "ran", "first time")
        assert outcome("a b", seed=1) == [("write", "reused", ""), ("count", "reused", "")]
        assert outcome("a b", seed=3)[0][2] == "split.seed 1 → 3"  # reused last, so no further away than its own


def test_a_plan_runs_nothing_and_says_the_same() -> None:
    outcome("a b")
    calls.clear()
    with journal(dry=True) as book:
        handle = write("a c", SplitParams())
        assert isinstance(handle, Pending)
        count(handle)
        count(write("a b", SplitParams()))
    assert [(v.status, v.reason) for v in book.stage_runs] == [
        ("runs", "text a b → a c"),
        ("runs", "unless write gives what it gave before"),
        ("reused", ""),
        ("reused", ""),
    ]
    assert calls == []


def test_a_damaged_result_is_made_again_and_said(caplog: pytest.LogCaptureFixture) -> None:
    outcome("a b")
    (path,) = store.stage_folder("write").glob("*/text.txt")
    path.write_text("A b")
    assert outcome("a b")[0][1:] == ("ran", "its stored result is damaged")
    assert "text.txt has other content" in caplog.text
    assert path.read_text() == "a b"


def test_a_deleted_result_is_made_again() -> None:
    import shutil

    outcome("a b")
    (folder,) = (p for p in store.stage_folder("write").iterdir() if p.is_dir())
    shutil.rmtree(folder)
    assert outcome("a b") == [("write", "ran", "its stored result was deleted"), ("count", "reused", "")]


def test_a_failure_leaves_no_result() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            pipeline("fails")
    assert calls == ["fails", "fails"]
    kept = list(store.stage_folder("write").glob("*/handle.json"))
    assert kept == [], "a result of a stage that failed"


def test_a_handle_is_small_and_its_key_has_no_path(mlruns: Path) -> None:
    outcome("a b")
    for path in (mlruns / "stages").rglob("handle.json"):
        assert path.stat().st_size < 2000
    record = write.record("a b", SplitParams())
    assert str(mlruns) not in record.model_dump_json()


def test_two_that_want_the_same_key_compute_it_once() -> None:
    results: list[Text] = []
    threads = [threading.Thread(target=lambda: results.append(pipeline("slow"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert calls.count("slow") == 1, "one computes, the other takes the result"


def test_no_room_is_a_store_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="expected room to write its result"):
        write("a b", SplitParams())


def test_labels_reach_the_function() -> None:
    assert current_label() == ""
    with journal() as done:
        count.labelled("trial 1")(write("x", SplitParams()))
    assert [v.label for v in done.stage_runs] == ["", "trial 1"]
