"""A fetched model is there once for all processes of a store, and gone with the last of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from apf_tasks.tracking._downloads import fetch_once

READER = """
    import sys, time
    from pathlib import Path
    from apf_tasks.tracking._downloads import fetch_once

    def fetch(folder):
        with open("fetched.txt", "a") as log:
            log.write("once\\n")
        time.sleep(0.2)
        (folder / "weights").write_text("all")

    for _ in range(2):
        print(fetch_once("mlflow-artifacts:/1/models/m-1", fetch) / "weights", flush=True)
    sys.stdin.read()  # reads until it is told to end
"""


class Reader:
    """A process that has asked for the model."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", textwrap.dedent(READER)]
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(self) -> Path:
        """The file it read."""
        assert self.process.stdout is not None
        return Path(self.process.stdout.readline().strip())

    def end(self) -> None:
        """And wait for it."""
        self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APF_MLRUNS", str(tmp_path / "mlruns"))
    return tmp_path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "mlruns" / "downloads").iterdir())


def test_processes_share_one_copy_and_the_last_one_removes_it(folder: Path) -> None:
    first, second = Reader(folder), Reader(folder)
    path = first.said()
    assert second.said() == path
    first.end()
    assert path.read_text() == "all"  # the other still reads it
    second.end()
    assert (folder / "fetched.txt").read_text().splitlines() == ["once"]
    assert left(folder) == []


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path) -> None:
    killed = Reader(folder)
    path = killed.said()
    killed.process.send_signal(signal.SIGKILL)
    killed.process.communicate()
    assert path.exists()
    other = fetch_once("mlflow-artifacts:/1/models/m-2", lambda into: (into / "weights").write_text("other"))
    assert not path.exists()
    assert (other / "weights").read_text() == "other"


def test_a_fetch_that_fails_leaves_nothing_and_is_tried_again(folder: Path) -> None:
    def fails(into: Path) -> None:
        (into / "weights").write_text("a part")
        raise OSError("the server is gone")

    with pytest.raises(OSError, match="the server is gone"):
        fetch_once("mlflow-artifacts:/1/models/m-3", fails)
    found = fetch_once("mlflow-artifacts:/1/models/m-3", lambda into: (into / "more").write_text("all of it"))
    assert [path.name for path in found.iterdir()] == ["more"]
