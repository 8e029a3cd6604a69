"""A call that another process makes: what goes there, and what comes back."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from apf_tasks.cache import store
from apf_tasks.cache.workspace import Workspace
from apf_tasks.errors import ParamsError
from apf_tasks.runtime.calls import RemoteCall, Result

entered: list[str] = []


@contextmanager
def noted(name: str) -> Iterator[None]:
    entered.append(name)
    yield
    entered.append(f"end of {name}")


def root_and_contexts() -> tuple[Path, list[str]]:
    return store.root(), [*entered]


def refuse(error: Exception) -> None:
    raise error


class UnpicklableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


def test_another_process_works_in_the_contexts_and_the_workspace_of_the_caller(tmp_path: Path) -> None:
    with Workspace(tmp_path / "mine").active():
        call = RemoteCall(root_and_contexts, contexts=(partial(noted, "outer"), partial(noted, "inner")))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(call.run).result()
    assert result == Result(value=(tmp_path / "mine", ["outer", "inner"]))


def test_an_error_comes_back_as_a_value() -> None:
    error = ParamsError("train", "this", "that", "Correct it.")
    result = pickle.loads(pickle.dumps(RemoteCall(refuse, (error,)).run()))
    assert type(result.error) is ParamsError
    assert str(result.error) == str(error)


def test_an_error_that_does_not_pickle_says_the_same() -> None:
    result = pickle.loads(pickle.dumps(RemoteCall(refuse, (UnpicklableError(1, 2),)).run()))
    assert isinstance(result.error, RuntimeError)
    assert "1 and 2" in str(result.error)


def test_an_error_of_a_context_is_one_of_the_call() -> None:
    assert isinstance(RemoteCall(root_and_contexts, contexts=(partial(refuse, OSError("no")),)).run().error, OSError)


def test_a_request_to_stop_is_no_result() -> None:
    with pytest.raises(KeyboardInterrupt):
        RemoteCall(refuse, (KeyboardInterrupt(),)).run()  # type: ignore[arg-type]
