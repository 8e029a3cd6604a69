"""The champion moves once, under a lock, with a log that survives a kill; on a real MLflow registry."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from apf_tasks.errors import PromotionRefusedError, RegistryError
from apf_tasks.tracking import champion, tracker
from apf_tasks.tracking.champion import Promotion, add_challenger, history, log_file, promote, restore_aliases, rollback
from apf_tasks.tracking.registry import aliases_of

NAME = "reviews"

PROCESSES = multiprocessing.get_context("forkserver")
STORES = ["mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"]
PROCESSES.set_forkserver_preload(["mlflow", *STORES, "apf_tasks.tracking.champion", "pytest"])
"""They are forked from one that has imported MLflow, which each would need seconds for."""


def promoted_until(at: int, mlruns: str) -> None:
    """Version 2 becomes the champion, but for a kill after step `at`, or before the first one (-1)."""
    os.environ["APF_MLRUNS"] = mlruns
    real = champion._apply

    def steps(move: Promotion) -> Iterator[str]:
        for number, name in enumerate(real(move) if at >= 0 else [""]):
            if number == max(at, 0):
                os.kill(os.getpid(), signal.SIGKILL)
            yield name

    champion._apply = steps
    promote(NAME, 2, "better", 1)


def raced(version: int, mlruns: str, start: Barrier, said: SimpleQueue[tuple[int, str]]) -> None:
    """A promotion that begins when another begins."""
    os.environ["APF_MLRUNS"] = mlruns
    start.wait(60)
    try:
        promote(NAME, version, "mine is better", 1)
        said.put((version, "promoted"))
    except PromotionRefusedError:
        said.put((version, "refused"))


@pytest.fixture
def versions(tmp_path: Path) -> None:
    """Three versions; the first is the champion."""
    client = tracker.client()
    client.create_registered_model(NAME)
    for number in (1, 2, 3):
        client.create_model_version(NAME, (tmp_path / str(number)).as_uri())
        add_challenger(NAME, number)


def killed(at: int, mlruns: Path) -> None:
    """A promotion in a process that is killed after its step `at`."""
    process = PROCESSES.Process(target=promoted_until, args=(at, str(mlruns)))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, f"it ended with {process.exitcode} before it was killed"


@pytest.mark.usefixtures("versions")
def test_the_first_version_is_the_champion_and_each_new_one_the_challenger() -> None:
    assert aliases_of(NAME) == {"champion": 1, "challenger": 3}
    [first] = history(NAME).moves
    assert (first.kind, first.version, first.before, first.why) == ("promote", 1, None, "the first version")


@pytest.mark.usefixtures("versions")
def test_a_promotion_and_its_rollback_are_written_down() -> None:
    promote(NAME, 3, "better on reviews", 1, {"beat_champion": "+0.02 [+0.01, +0.03]"})
    assert aliases_of(NAME) == {"champion": 3, "previous": 1, "challenger": 3}
    tag = tracker.client().get_model_version(NAME, "3").tags[champion.TAG]
    assert "better on reviews" in tag
    assert "+0.02 [+0.01, +0.03]" in tag
    rollback(NAME, "slower than thought")
    assert aliases_of(NAME) == {"champion": 1, "previous": 3, "challenger": 3}
    rollback(NAME, "it was the network")
    assert aliases_of(NAME)["champion"] == 3
    found = history(NAME)
    assert [(m.kind, m.version, m.before) for m in found.moves] == [
        ("promote", 1, None),
        ("promote", 3, 1),
        ("rollback", 1, 3),
        ("rollback", 3, 1),
    ]
    assert found.agrees
    assert not [move for move in found.moves if not (move.who and move.at)], "each move says who made it, and when"


@pytest.mark.usefixtures("versions")
def test_a_champion_that_the_gate_did_not_see_is_not_replaced() -> None:
    promote(NAME, 2, "better", 1)
    with pytest.raises(
        PromotionRefusedError, match="expected version 1 as champion, with which it was compared, found"
    ):
        promote(NAME, 3, "better", 1)
    with pytest.raises(PromotionRefusedError, match="the champion itself"):
        promote(NAME, 2, "again", 2)
    with pytest.raises(RegistryError, match="reviews/9"):
        promote(NAME, 9, "better", 2)
    assert aliases_of(NAME)["champion"] == 2
    assert [move.version for move in history(NAME).moves] == [1, 2]


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("at", [-1, 0, 1, 2, 3])
def test_a_kill_between_any_two_steps_leaves_one_true_champion(at: int, mlruns: Path) -> None:
    killed(at, mlruns)
    assert aliases_of(NAME)["champion"] in (1, 2)
    found = history(NAME)  # finishes what was begun
    assert (found.champion, found.previous, found.agrees) == (2, 1, True)
    assert [move.version for move in found.moves] == [1, 2]
    assert history(NAME) == found
    assert aliases_of(NAME) == {"champion": 2, "previous": 1, "challenger": 3}


@pytest.mark.usefixtures("versions")
def test_of_two_promoters_one_wins(mlruns: Path) -> None:
    start, said = PROCESSES.Barrier(2), PROCESSES.SimpleQueue()
    racers = [PROCESSES.Process(target=raced, args=(number, str(mlruns), start, said)) for number in (2, 3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0, "a promotion that is refused is no failure of its process"
    ended = {outcome: version for version, outcome in (said.get(), said.get())}
    assert set(ended) == {"promoted", "refused"}
    won = ended["promoted"]
    found = history(NAME)
    assert (found.champion, found.previous, found.agrees) == (won, 1, True)
    assert [move.version for move in found.moves] == [1, won]


@pytest.mark.usefixtures("versions")
def test_a_torn_line_is_no_move() -> None:
    with log_file(NAME).open("a") as log:
        log.write('{"id": "abc", "kind": "prom')
    promote(NAME, 2, "better", 1)
    assert [move.version for move in history(NAME).moves] == [1, 2]
    with log_file(NAME).open("a") as log:
        log.write('{"id": "abc", "kind": "praise"}\n')
    with pytest.raises(RegistryError, match=r"jsonl:6: expected a line of the promotion log"):
        history(NAME)


@pytest.mark.usefixtures("versions")
def test_foreign_bytes_in_the_log_are_named_unless_a_kill_has_left_them() -> None:
    with log_file(NAME).open("ab") as log:
        log.write('{"id": "abc", "why": "好'.encode()[:-1])  # cut within a character
    promote(NAME, 2, "better\u2028so far", 1)
    assert [move.version for move in history(NAME).moves] == [1, 2]
    file = log_file(NAME)
    file.write_bytes(file.read_bytes().replace(b"the first version", b"the first \xff"))
    with pytest.raises(RegistryError, match=r"jsonl:1: expected a line of the promotion log"):
        history(NAME)


@pytest.mark.usefixtures("versions")
def test_a_champion_moved_by_hand_voids_what_was_cut_short(mlruns: Path) -> None:
    killed(1, mlruns)
    tracker.client().set_registered_model_alias(NAME, "champion", "3")
    found = history(NAME)
    assert (found.champion, found.expected, found.agrees) == (3, 1, False)
    assert [move.version for move in found.moves] == [1]
    promote(NAME, 2, "better", 3)
    assert history(NAME).agrees


@pytest.mark.usefixtures("versions")
def test_a_registry_that_has_forgotten_is_told_again() -> None:
    promote(NAME, 2, "better", 1)
    for alias in ("champion", "previous"):
        tracker.client().delete_registered_model_alias(NAME, alias)
    assert not history(NAME).agrees
    found = restore_aliases(NAME)
    assert (found.champion, found.previous, found.agrees) == (2, 1, True)


def test_nothing_to_go_back_to(tmp_path: Path) -> None:
    tracker.client().create_registered_model(NAME)
    tracker.client().create_model_version(NAME, (tmp_path / "1").as_uri())
    add_challenger(NAME, 1)
    with pytest.raises(PromotionRefusedError, match="expected a previous champion, found none"):
        rollback(NAME, "why not")
    with pytest.raises(RegistryError, match="expected a registered model"):
        history("nobody")
