"""What the store believes of a result that somebody has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from apf_tasks.cache.store import Record


class Text(Artifact):
    """A toy artifact."""

    words: int


@pytest.fixture
def stored() -> Path:
    """The folder of a result."""
    partial = store.open_partial("write", "key", resumable=False)
    (partial / "text.txt").write_text("two words")
    record = Record(stage="write", key="key", inputs={}, code={}, libraries={}, seconds=1)
    return store.commit(partial, Text(path=partial, fingerprint="0", words=2), record).path


def test_a_result_is_believed_as_it_was_stored(stored: Path) -> None:
    found = store.load("write", "key", Text)
    assert found is not None
    assert found.words == 2


@pytest.mark.parametrize("name", ["text.txt", "handle.json"])
def test_a_result_that_was_changed_by_hand_is_not_believed(stored: Path, name: str) -> None:
    text = (stored / name).read_text()
    (stored / name).write_text(text.replace("2", "3") if "2" in text else text.upper())
    assert store.load("write", "key", Text) is None


def test_a_result_of_before_whose_record_does_not_list_the_handle_is_believed(stored: Path) -> None:
    record = store.read_record("write", "key")
    assert record is not None
    files = {name: file for name, file in record.files.items() if name != store.HANDLE}
    (stored / store.RECORD).write_text(record.model_copy(update={"files": files}).model_dump_json())
    assert store.load("write", "key", Text) is not None
