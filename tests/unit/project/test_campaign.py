"""The campaigns of faults: that each would notice what it looks for. What they find is in docs/RELIABILITY.md."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.campaign import damaged_inputs, hostile_archives, odd_params, run
from tests.campaign.common import Cases, Workbench, _other_points, outcome
from tests.campaign.concurrency import log_and_registry
from tests.campaign.isolated import LONGEST, Found, attempt, isolated
from tests.campaign.kills import wait_for_training
from tests.campaign.mutations import MUTATIONS
from tests.campaign.serve_faults import Answer, Request, wrong
from tests.campaign.servers_away import Proxy
from tests.campaign.stored_damage import WAYS, damage
from tests.faults.run import read_faults
from tests.support.paths import PROJECT


def test_what_went_wrong_is_counted_and_told() -> None:
    cases = Cases("cases went well")
    cases.add("one", [""])
    cases.add("two", ["", "it crashed"])
    assert str(cases.figure) == "1 of 2 cases went well"
    assert run.table({"kills": (cases.figure, 90.0)}).endswith(
        "| kills | 1 of 2 cases went well | 1.5 |\nkills: two: it crashed"
    )


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["kils"])
    assert "found kils" in capsys.readouterr().err


def crashes(found: Found, how: str) -> None:
    """Something that goes wrong in a process of its own."""
    from apf_tasks.errors import DataError

    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "raises":
        attempt(found, "reading", lambda: 1 / 0)
    else:
        attempt(found, "reading", lambda: _raise(DataError("file", "rows", "x" * LONGEST, "Nothing.")))


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("dies", "the process ended with SIGKILL"),
        ("raises", "reading: ZeroDivisionError"),
        ("says too much", "reading: a message of 20,0"),
    ],
)
def test_a_crash_a_kill_and_an_endless_message_are_noticed(tmp_path: Path, how: str, found: str) -> None:
    (problem,) = isolated(tmp_path, crashes, how)
    assert problem.startswith(found)


def test_a_good_file_is_read_and_other_rows_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(damaged_inputs.seeds())
    assert damaged_inputs.case(tmp_path / "good", seed, seed.content) == []
    found: Found = {"problems": []}
    (tmp_path / "again").mkdir()
    file = tmp_path / "again" / seed.name
    file.write_bytes(seed.content)
    monkeypatch.setattr(damaged_inputs, "count", lambda file, seed: 59)
    damaged_inputs.read_everywhere(found, tmp_path / "again", file, seed)
    assert found["problems"] == ["ingest counts 60 rows of 59", "apf predict reads 60 rows of 59"]


def test_every_mutation_changes_a_file_and_the_same_seed_does_so_alike() -> None:
    seed = next(one for one in damaged_inputs.seeds() if one.name == "words.jsonl")
    for mutation in MUTATIONS:
        first, second = (
            [mutation(seed.content, random.Random(number), seed.kind) for number in range(5)] for _ in range(2)
        )
        assert first == second
        assert any(content != seed.content for content in first), mutation.__name__


def test_params_that_are_odd_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text(odd_params.FILES["a ring in a section"])
    assert odd_params.checked(tmp_path, odd_params.Case("a ring", "")) == []
    assert len({case.name for case in odd_params.changed(random.Random(0))}) > 200


def test_an_honest_archive_is_taken_and_a_link_that_comes_out_is_noticed(tmp_path: Path) -> None:
    honest = next(hostile_archives.tars(tmp_path))
    with hostile_archives.index(honest) as address:
        assert isolated(tmp_path, hostile_archives.fetch, honest, tmp_path, address) == []
    assert list(hostile_archives.came_out(tmp_path, honest)) == []
    (tmp_path / "out").symlink_to("/etc")
    assert list(hostile_archives.came_out(tmp_path, honest)) == ["no plain files: out"]


def test_every_way_of_damage_changes_the_file(tmp_path: Path) -> None:
    for how in WAYS:
        file, other = tmp_path / "file", tmp_path / "other"
        file.write_bytes(b'{"rows": 12}')
        other.write_bytes(b"something else")
        assert damage(file, how, [other], random.Random(0))
        assert not file.exists() or file.read_bytes() != b'{"rows": 12}'


def test_orphans_are_found_told_and_ended(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    environment = bench.environment(tmp_path / "mlruns")
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    (told,) = bench.orphans(0.1)
    assert orphan.wait(60) == -signal.SIGKILL
    assert told.startswith("1 alive after 0 s")
    assert bench.orphans(0.1) == []


def test_a_kill_waits_for_a_training(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("train_rung of an earlier run\n")
    seen = log.stat().st_size
    code = "import sys, time; time.sleep(0.3); open(sys.argv[1], 'a').write('train_model'); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, str(log)])
    wait_for_training(process, log, seen)
    assert process.poll() is None
    assert log.read_text().endswith("train_model")
    process.kill()
    process.wait()


def test_points_that_are_lost_or_doubled_are_noticed() -> None:
    then = {"one": [("loss", 1, 0.5), ("loss", 2, 0.4)]}
    now = {"one": [("loss", 1, 0.5), ("loss", 1, 0.5)]}
    assert _other_points(then, then) == []
    assert _other_points(then, now) == ["points of one: 1 lost, 1 more"]


def test_other_weights_are_noticed(tmp_path: Path) -> None:
    model = tmp_path / "stages" / "train_model" / "key" / "model" / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"1")
    before = outcome(tmp_path)
    model.write_bytes(b"2")
    assert outcome(tmp_path)["weights"].keys() == before["weights"].keys()
    assert outcome(tmp_path) != before


def test_a_broken_chain_of_promotions_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "promotions").mkdir()
    moves = [
        {"id": 1, "state": "done", "version": 1, "before": None},
        {"id": 2, "state": "done", "version": 2, "before": 3},
        {"id": 3, "state": "begun", "version": 1, "before": 2},
    ]
    (tmp_path / "promotions" / "a.jsonl").write_text("\n".join(map(json.dumps, moves)))
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("create table registered_model_aliases (alias text, version integer)")
    database.execute("insert into registered_model_aliases values ('champion', 1)")
    database.commit()
    database.close()
    assert log_and_registry(tmp_path) == [
        "1 was followed by a move from 3",
        "1 moves were not finished",
        "the registry's champion is [1], the log's 2",
    ]


@pytest.fixture
def behind() -> Iterator[int]:
    """A server that says hello; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"well")

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_proxy_misbehaves_as_it_is_told(behind: int) -> None:
    proxy = Proxy(behind)

    def asked() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/", timeout=0.5) as answer:
            return bytes(answer.read())

    assert asked() == b"well"
    proxy.how = "nonsense"
    assert asked() == b"hello"
    proxy.how = "errors"
    with pytest.raises(urllib.error.HTTPError) as caught:
        asked()
    caught.value.close()
    for proxy.how in ("refuses", "hangs"):
        with pytest.raises(OSError):  # noqa: PT011  # whichever
            asked()
    proxy.how = "passes"
    assert asked() == b"well"
    proxy.close()


def test_answers_that_do_not_suit_a_request_are_noticed() -> None:
    row, none = Request("a row", b"", True), Request("no row", b"", False)
    assert wrong(row, Answer(200, b"{}", 0.1)) == wrong(none, Answer(400, b"{}", 0.1)) == ""
    assert wrong(row, Answer(400, b"{}", 0.1)) == "400 for a row"
    assert wrong(none, Answer(200, b"{}", 0.1)) == "200 for what is no row"
    assert wrong(none, Answer(400, b"Traceback", 0.1)) == "a stack trace in the answer"
    assert wrong(row, Answer(0, b"refused", 0.1)).startswith("no answer")


def test_the_planted_faults_fit_the_tree() -> None:
    """`python -m tests.faults.run` plants them; a fault whose text or test is gone would catch nothing."""
    for fault in read_faults():
        assert (PROJECT / fault.file).read_text().count(fault.text) == 1, f"once in {fault.file}: {fault.text}"
        for name in fault.tests:
            file, _, test = name.partition("[")[0].partition("::")
            assert not test or f"def {test.rpartition('::')[2]}(" in (PROJECT / file).read_text(), f"a test {name}"
