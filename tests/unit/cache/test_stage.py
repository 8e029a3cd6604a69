"""Stages in this process, without an orchestrator: what is stored, reused and computed again, and why."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.cache.journal import Pending, journal
from apf_tasks.cache.stage import stage
from apf_tasks.params.data import SplitParams
from apf_tasks.params.train import RuntimeParams

NOTE = "how-far.txt"
calls: list[str] = []
entered = threading.Event()


class Text(Artifact):
    """A toy artifact."""

    words: int


@stage()
def write(out: Path, text: str, split: SplitParams) -> Text:
    calls.append(text)
    if text == "slow":
        entered.set()
        (out / store.CHECKPOINT_DIR).mkdir()
        (out / store.CHECKPOINT_DIR / NOTE).touch()
    (out / "text.txt").write_text(text)
    if text == "fails":
        raise ValueError("no")
    return Text(path=out, fingerprint=fingerprint_files(out, ["text.txt"]), words=len(text.split()))


@stage()
def count(out: Path, text: Text) -> Text:
    calls.append("count")
    (out / "count.txt").write_text(str(text.words))
    return Text(path=out, fingerprint=fingerprint_files(out, ["count.txt"]), words=text.words)


@stage(resumable=True)
def go_on(out: Path, text: str, runtime: RuntimeParams) -> Text:
    """Fails once, and goes on from what it has left."""
    calls.append("again" if (out / NOTE).exists() else "anew")
    (out / NOTE).touch()
    if calls[-1] == "anew":
        raise ValueError("no")
    return Text(path=out, fingerprint=text, words=1)


@pytest.fixture(autouse=True)
def _forget() -> None:
    calls.clear()
    entered.clear()


def outcome(text: str, seed: int = 0) -> list[tuple[str, str, str]]:
    """(stage, status, reason) of a text that is written and counted."""
    with journal() as done:
        count(write(text, SplitParams(seed=seed)))
    return [(run.stage, run.status, run.reason) for run in done.stage_runs]


def test_what_is_stored_is_reused_and_complete() -> None:
    assert outcome("a b") == [("write", "ran", "first time"), ("count", "ran", "first time")]
    assert outcome("a b") == [("write", "reused", ""), ("count", "reused", "")]
    assert calls == ["a b", "count"]
    key = write.record("a b", SplitParams()).key
    handle = write.stored(key)
    assert handle is not None
    assert handle.path == store.stage_folder("write", key), "the folder with its final name"
    record = store.read_record("write", key)
    assert record is not None
    assert record.files.keys() == {"text.txt", store.HANDLE}
    assert record.files["text.txt"].bytes == 3


def test_a_changed_value_is_named_and_equal_content_stops_the_chain() -> None:
    outcome("a b", seed=1)
    assert outcome("a b", seed=2) == [("write", "ran", "split.seed 1 → 2"), ("count", "reused", "")]
    assert outcome("c", seed=2) == [("write", "ran", "text a b → c"), ("count", "ran", "content of text changed")]


def test_how_it_is_computed_is_not_in_the_key() -> None:
    keys = {go_on.record("a", RuntimeParams(device=device)).key for device in ("cpu", "cuda")}
    assert len(keys) == 1, "the device changes no result"
    assert go_on.record("a", RuntimeParams(precision="fp32")).key not in keys, "the precision does"


def test_a_plan_runs_nothing() -> None:
    outcome("a b")
    calls.clear()
    with journal(dry=True) as plan:
        planned = write("a c", SplitParams())
        count(planned)
        count(write("a b", SplitParams()))
    assert isinstance(planned, Pending)
    assert [(run.stage, run.status) for run in plan.stage_runs] == [
        ("write", "runs"),
        ("count", "runs"),
        ("write", "reused"),
        ("count", "reused"),
    ]
    assert calls == []


def test_an_inner_journal_writes_into_the_outer_unless_it_alone_is_dry() -> None:
    with journal() as outer:
        with journal():
            write("a", SplitParams())
        with journal(dry=True) as plan:
            write("b", SplitParams())
    assert [run.status for run in outer.stage_runs] == ["ran"]
    assert [run.status for run in plan.stage_runs] == ["runs"]


@pytest.mark.parametrize("content", ["A b", "longer", None])
def test_a_damaged_result_is_computed_again(content: str | None, caplog: pytest.LogCaptureFixture) -> None:
    outcome("a b")
    [path] = store.stage_folder("write").glob("*/text.txt")
    path.unlink() if content is None else path.write_text(content)
    assert outcome("a b")[0] == ("write", "ran", "its stored result is damaged")
    assert "is damaged (text.txt " in caplog.text
    assert path.read_text() == "a b"


def test_what_fails_leaves_no_result_and_the_next_call_an_empty_folder() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            write("fails", SplitParams())
    assert calls == ["fails", "fails"]
    [left] = store.stage_folder("write").iterdir()
    assert left.suffix == ".partial"


def test_what_can_go_on_finds_what_it_has_left() -> None:
    with pytest.raises(ValueError, match="no"):
        go_on("a", RuntimeParams())
    assert go_on("a", RuntimeParams()).fingerprint == "a"
    assert calls == ["anew", "again"]


def test_two_that_want_the_same_key_compute_it_once() -> None:
    key = write.record("slow", SplitParams()).key
    found: list[Text] = []
    with journal() as done, store.lock(key):
        threads = [threading.Thread(target=lambda: found.append(write("slow", SplitParams()))) for _ in range(2)]
        for thread in threads:
            thread.start()
        early = entered.wait(0.5)
    for thread in threads:
        thread.join()
    assert not early, "nobody works on a result whose lock is taken"
    assert calls == ["slow"]
    assert [handle.path.name for handle in found] == [key, key]
    assert [path.name for path in found[0].path.iterdir() if path.is_dir()] == [], "nobody needs its checkpoint now"
    assert done.stage_runs == [], "a thread has a context of its own"
