"""A function in a process of its own, with limits: what it found, or how the process ended."""

from __future__ import annotations

import json
import logging
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from apf_tasks.errors import ApfError

Found = dict[str, Any]
"""Plain values. Under `problems` there is what went wrong, as lines."""
T = TypeVar("T")

SECONDS, BYTES = 60.0, 2 << 30
"""A case that takes more went wrong."""
GRACE = 2.0
"""So many times as much, and it is ended."""
LONGEST = 20_000
"""Characters of a message."""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [f"tests.campaign.{name}" for name in ("damaged_inputs", "hostile_archives", "odd_params")]
)
"""They are forked from one that has imported what all need."""


def isolated(folder: Path, work: Callable[..., None], *arguments: Any) -> list[str]:
    """What went wrong when `work` was called with a place for its findings, and these arguments, elsewhere."""
    file = folder / "found.json"
    process = PROCESSES.Process(target=_call, args=(file, work, arguments))
    began = time.monotonic()
    process.start()
    process.join(GRACE * SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return [f"not done after {GRACE * SECONDS:.0f} s"]
    if not file.is_file():
        ended = process.exitcode or 0
        return [f"the process ended with {signal.Signals(-ended).name if ended < 0 else ended}"]
    found: Found = json.loads(file.read_text())
    problems = [str(problem) for problem in found["problems"]]
    if (took := time.monotonic() - began) > SECONDS:
        problems.append(f"it took {took:.0f} s")
    if found["peak"] > BYTES:
        problems.append(f"it took {found['peak'] / 2**30:.1f} GiB")
    return problems


def attempt(found: Found, name: str, work: Callable[[], T]) -> T | None:
    """What `work` gives. One of apf's own errors is an answer; any other, or one of endless length, is a problem."""
    try:
        return work()
    except ApfError as error:
        text = str(error)
        if len(text) > LONGEST:
            found["problems"].append(f"{name}: a message of {len(text):,} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            found["problems"].append(f"{name}: a message that cannot be printed")
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
        found["problems"].append(f"{name}: {text}")
    return None


def _call(file: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    logging.disable(logging.CRITICAL)
    found: Found = {"problems": []}
    attempt(found, "the campaign itself", lambda: work(found, *arguments))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    file.write_text(json.dumps({"problems": found["problems"], "peak": peak}))
