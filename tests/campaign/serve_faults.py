"""Odd, huge and many requests to `apf serve`: each gets an answer, and the server lives on and answers as before."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

from apf_tasks.serving._processes import free_port
from tests.campaign.common import SMOKE, Cases, Figure, Workbench, undisturbed

REQUESTS, AT_ONCE = 200, 20
SECONDS = 120.0
"""In which there has to be an answer."""


class Answer(NamedTuple):
    """What came back: 0 where nothing did."""

    status: int
    body: bytes
    seconds: float


class Request(NamedTuple):
    """What is sent, and whether it holds rows that are to be answered."""

    name: str
    body: bytes
    good: bool
    kind: str = "application/json"


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of requests that were answered rightly."""
    cases, port = Cases("odd requests were answered rightly"), free_port(0)
    mlruns = undisturbed(bench, SMOKE)
    log, store = bench.folder / "serve.log", {"MLFLOW_TRACKING_URI": f"sqlite:///{mlruns}/mlflow.db"}
    words = ("serve", "sentiment@champion", "--port", str(port))
    with bench.serving(mlruns, *words, log=log, **store) as server:
        url = f"http://127.0.0.1:{port}"
        wait_for_start(server, url)
        usual = ask(url, records({"text": "a brave story"}))
        for request in requests(10_000 if quick else 1_000_000):
            found = ask(url, request.body, request.kind)
            after = ask(url, records({"text": "a brave story"}))
            problems = [
                wrong(request, found),
                "" if after[:2] == usual[:2] else "the usual request gets another answer",
            ]
            problems.append("" if server.poll() is None else "the server has ended")
            cases.add(request.name, problems, f"{found.status} in {found.seconds:.1f} s")
        many = all_at_once(url, REQUESTS // (4 if quick else 1))
        cases.add(f"{len(many)} at once", [f"{one.status}" for one in many if one[:2] != usual[:2]][:3])
    cases.add("Ctrl-C", bench.orphans(20))
    return cases.figure


def wait_for_start(server: subprocess.Popen[bytes], url: str) -> None:
    """Until it answers. Raises RuntimeError when it ends before."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError("the server does not start")


def ask(url: str, body: bytes, kind: str = "application/json") -> Answer:
    """One request."""
    began = time.monotonic()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return Answer(answer.status, answer.read(), time.monotonic() - began)
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(), time.monotonic() - began)
    except OSError as error:
        return Answer(0, str(error).encode(), time.monotonic() - began)


def all_at_once(url: str, count: int) -> list[Answer]:
    """The usual request, so many times, AT_ONCE at a time."""
    answers: list[Answer] = []

    def some() -> None:
        for _ in range(count // AT_ONCE):
            answers.append(ask(url, records({"text": "a brave story"})))

    threads = [threading.Thread(target=some) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def wrong(request: Request, answer: Answer) -> str:
    """ "" when the answer suits the request."""
    if answer.status == 0:
        return f"no answer: {answer.body[:100]!r}"
    if b"Traceback" in answer.body:
        return "a stack trace in the answer"
    if request.good and answer.status != 200:
        return f"{answer.status} for a row"
    if not request.good and not 400 <= answer.status < 500:
        return f"{answer.status} for what is no row"
    return ""


def records(*rows: Any) -> bytes:
    """Rows in MLflow's usual form."""
    return json.dumps({"dataframe_records": list(rows)}).encode()


def requests(letters: int) -> Iterator[Request]:
    """Odd ones; long texts are of so many letters."""
    yield Request("a long text", records({"text": "brave " * (letters // 6)}), True)
    yield Request("a long word", records({"text": "b" * letters}), True)
    yield Request("1,000 rows", records(*({"text": f"a brave story {i}"} for i in range(1000))), True)
    yield Request("an empty text", records({"text": ""}), True)
    yield Request("emoji and controls", records({"text": "😀\u0000\u202e\ufeff\x1b[31m"}), True)
    yield Request("half a surrogate pair", b'{"dataframe_records": [{"text": "\\ud800 brave"}]}', False)
    yield Request("a column more", records({"text": "brave", "other": 5}), True)
    split = {"dataframe_split": {"columns": ["text"], "data": [["brave"]]}}
    yield Request("by columns", json.dumps(split).encode(), True)
    yield Request("CSV", b"text\na brave story\n", True, "text/csv")
    yield Request("special tokens", records({"text": "[CLS] [SEP] [MASK] [PAD] [UNK]"}), True)
    yield Request("nothing for a text", records({"text": None}), False)
    yield Request("NaN for a text", b'{"dataframe_records": [{"text": NaN}]}', False)
    yield Request("a number for a text", records({"text": 5}), True)
    yield Request("a list for a text", records({"text": ["a"]}), False)
    yield Request("another column", records({"body": "x"}), False)
    yield Request("no rows", records(), False)
    yield Request("no body", b"", False)
    yield Request("no JSON", b"{", False)
    yield Request("an array", b"[1, 2]", False)
    yield Request("an unknown form", b'{"rows": []}', False)
    yield Request("deep", b"[" * 100_000, False)
    yield Request("no UTF-8", b'{"dataframe_records": [{"text": "\xff"}]}', False)
    yield Request("an unknown kind", b"x", False, "application/x-strange")
    yield Request("a pickle", b"cos\nsystem\n(S'id'\ntR.", False, "application/octet-stream")
    yield Request("some good rows", records({"text": "a"}, {"text": None}), False)
