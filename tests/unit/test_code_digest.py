"""What in the code makes a stage run again, and what does not."""

from __future__ import annotations

import ast
import gc
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from apf_tasks import code_digest
from apf_tasks.code_digest import code_digests


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's source to edit."""
    copy = tmp_path / "apf_tasks"
    shutil.copytree(code_digest.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "PACKAGE", copy)
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_comment_and_a_docstring_do_not_count(package: Path) -> None:
    before = code_digests(["schedules"])
    edit(package / "schedules.py", "warmup = round", "# rounded to the nearest step\n    warmup = round")
    edit(package / "schedules.py", '"""The peak, to the end."""', '"""Always the peak."""')
    assert code_digests(["schedules"]) == before


def test_an_expression_counts(package: Path) -> None:
    before = code_digests(["schedules"])
    edit(package / "schedules.py", "(step + 1) / warmup", "(step + 2) / warmup")
    assert code_digests(["schedules"]) != before


def test_imports_are_followed_and_reporting_is_not(package: Path) -> None:
    modules = code_digests(["training"], "sentiment").keys()
    assert {"apf_tasks.training", "apf_tasks.loop", "apf_tasks.schedules", "apf_tasks.families.sentiment"} <= modules
    assert not {"apf_tasks.tracking", "apf_tasks.progress", "apf_tasks.errors", "apf_tasks.store"} & modules
    before = code_digests(["training"], "sentiment")
    edit(package / "progress.py", "LINE_SECONDS = 10", "LINE_SECONDS = 20")
    assert code_digests(["training"], "sentiment") == before
    edit(package / "schedules.py", "return 1 - progress", "return 1 - progress / 2")
    assert code_digests(["training"], "sentiment") != before


def test_another_family_does_not_count(package: Path) -> None:
    before = code_digests(["training"], "sentiment")
    (package / "families" / "toy.py").write_text("X = 1\n")
    assert code_digests(["training"], "sentiment") == before


def test_all_that_a_family_uses_counts_and_its_baselines_only_where_they_are_compared(package: Path) -> None:
    def digests() -> list[dict[str, str]]:
        stages = (["ingestion"], ["training"], ["evaluation", "baselines"])
        return [code_digests(modules, family) for family in ("ner", "sentiment") for modules in stages]

    before = digests()
    edit(package / "words.py", "UNSPACED_SHARE = 0.2", "UNSPACED_SHARE = 0.3")  # how ner cuts a text into words
    changed = [a != b for a, b in zip(before, digests(), strict=True)]
    assert changed == [True, True, True, False, False, True]
    before = digests()
    edit(package / "metrics" / "entities.py", 'OUTSIDE = "O"', 'OUTSIDE = "o"')
    assert [a != b for a, b in zip(before, digests(), strict=True)] == [True, True, True, False, False, False]
    before = digests()
    edit(package / "baselines.py", "ngram_range=(1, 2)", "ngram_range=(1, 3)")
    assert [a != b for a, b in zip(before, digests(), strict=True)] == [False, False, True, False, False, True]


def test_what_is_imported_for_types_only_does_not_count(package: Path) -> None:
    before = code_digests(["ingestion"], "sentiment")
    edit(package / "families" / "sentiment.py", "if TYPE_CHECKING:", "if TYPE_CHECKING:\n    import decimal")
    assert code_digests(["ingestion"], "sentiment") == before


def test_another_thread_that_parses_spoils_nothing(package: Path) -> None:
    expected = code_digests(["training", "evaluation"])
    done = threading.Event()

    def parse(depth: int = 20) -> None:
        if depth:
            return parse(depth - 1)
        text = (package / "tracking.py").read_text()
        while not done.is_set():
            with suppress(SystemError):
                ast.parse(text)

    def give_way(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    thread = threading.Thread(target=parse)
    gc.callbacks.append(give_way)
    thread.start()
    try:
        for _ in range(3):
            code_digest._parse.cache_clear()
            assert code_digests(["training", "evaluation"]) == expected
    finally:
        done.set()
        thread.join()
        gc.callbacks.remove(give_way)
