"""The champion moves once, under a lock, with a log that survives a kill; on a real MLflow registry."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apf_tasks import promotion, tracker
from apf_tasks.errors import PromotionRefused, RegistryError
from apf_tasks.promotion import enter, history, log_file, promote, replay, rollback
from apf_tasks.registry import aliases_of
from tests.conftest import PROJECT

NAME = "reviews"

KILLED = """
import os, signal, sys
from apf_tasks import promotion

real, at = promotion.steps, int(sys.argv[1])
def steps(move):
    for number, name in enumerate(real(move)):
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        yield name
if at < 0:
    promotion.steps = lambda move: os.kill(os.getpid(), signal.SIGKILL)
else:
    promotion.steps = steps
promotion.promote("reviews", 2, "better", 1)
"""

RACER = """
import sys
from apf_tasks import promotion
from apf_tasks.errors import PromotionRefused

print("ready", flush=True)
input()
try:
    promotion.promote("reviews", int(sys.argv[1]), "mine is better", 1)
    print("promoted")
except PromotionRefused:
    print("refused")
"""


@pytest.fixture
def versions(tmp_path: Path) -> None:
    """Three versions; the first is the champion."""
    client = tracker.client()
    client.create_registered_model(NAME)
    for number in (1, 2, 3):
        client.create_model_version(NAME, (tmp_path / str(number)).as_uri())
        enter(NAME, number)


def started(code: str, argument: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, str(argument)], env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


@pytest.mark.usefixtures("versions")
def test_the_first_version_is_the_champion_and_each_new_one_the_challenger() -> None:
    assert aliases_of(NAME) == {"champion": 1, "challenger": 3}
    [first] = history(NAME).moves
    assert (first.kind, first.version, first.before, first.why) == ("promote", 1, None, "the first version")


@pytest.mark.usefixtures("versions")
def test_a_promotion_and_its_rollback_are_written_down() -> None:
    promote(NAME, 3, "better on reviews", 1, {"beat_champion": "+0.02 [+0.01, +0.03]"})
    assert aliases_of(NAME) == {"champion": 3, "previous": 1, "challenger": 3}
    tag = tracker.client().get_model_version(NAME, "3").tags[promotion.TAG]
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
    assert all(move.who and move.at for move in found.moves)


@pytest.mark.usefixtures("versions")
def test_a_champion_that_the_gate_did_not_see_is_not_replaced() -> None:
    promote(NAME, 2, "better", 1)
    with pytest.raises(PromotionRefused, match="expected version 1 as champion, against which it was judged, found"):
        promote(NAME, 3, "better", 1)
    with pytest.raises(PromotionRefused, match="the champion itself"):
        promote(NAME, 2, "again", 2)
    with pytest.raises(RegistryError, match="reviews/9"):
        promote(NAME, 9, "better", 2)
    assert aliases_of(NAME)["champion"] == 2
    assert [move.version for move in history(NAME).moves] == [1, 2]


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("at", [-1, 0, 1, 2, 3])
def test_a_kill_between_any_two_steps_leaves_one_true_champion(at: int) -> None:
    process = started(KILLED, at)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    assert aliases_of(NAME)["champion"] in (1, 2)
    found = history(NAME)  # finishes what was begun
    assert (found.champion, found.previous, found.agrees) == (2, 1, True)
    assert [move.version for move in found.moves] == [1, 2]
    assert history(NAME) == found
    assert aliases_of(NAME) == {"champion": 2, "previous": 1, "challenger": 3}


@pytest.mark.usefixtures("versions")
def test_of_two_promoters_one_wins() -> None:
    racers = [started(RACER, number) for number in (2, 3)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    said = [racer.communicate("go\n", timeout=60)[0].strip() for racer in racers]
    assert sorted(said) == ["promoted", "refused"]
    won = 2 + said.index("promoted")
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
def test_a_champion_moved_by_hand_voids_what_was_cut_short() -> None:
    started(KILLED, 1).communicate(timeout=60)
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
    found = replay(NAME)
    assert (found.champion, found.previous, found.agrees) == (2, 1, True)


def test_nothing_to_go_back_to(tmp_path: Path) -> None:
    tracker.client().create_registered_model(NAME)
    tracker.client().create_model_version(NAME, (tmp_path / "1").as_uri())
    enter(NAME, 1)
    with pytest.raises(PromotionRefused, match="expected a previous champion, found none"):
        rollback(NAME, "why not")
    with pytest.raises(RegistryError, match="expected a registered model"):
        history("nobody")
