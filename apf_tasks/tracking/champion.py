"""Which version is the champion: compared and swapped under a lock, written down first, and taken back.

MLflow moves an alias in one step but knows no history and no condition. So every move is first written into a log,
flushed to the disk, then made; a move that was cut short is finished by whoever looks at the log next. The log and the
lock are files of this project's folder; each version also carries its last move as the tag `apf.promotion`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import Field, ValidationError

from apf_tasks.cache import fingerprints, store
from apf_tasks.errors import PromotionRefusedError, RegistryError
from apf_tasks.params.base import Frozen
from apf_tasks.tracking import tracker
from apf_tasks.tracking.registry import aliases_of, find_version

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
TAG = "apf.promotion"


class Promotion(Frozen):
    """One line of the log: the champion goes from one version to another."""

    id: str
    kind: Literal["promote", "rollback"]
    state: Literal["begun", "done", "void"] = "begun"
    """`void`: interrupted, and the champion has changed since."""
    name: str
    version: int
    """The new champion."""
    before: int | None
    """The champion before."""
    who: str
    why: str
    at: str
    """UTC, ISO 8601."""
    gate: dict[str, str] = Field(default_factory=dict)
    """Rule -> what was found."""


class History(Frozen):
    """All moves of a model, oldest first, and what the registry says now."""

    name: str
    moves: tuple[Promotion, ...]
    champion: int | None
    previous: int | None

    @property
    def expected(self) -> int | None:
        """The champion by the log."""
        return self.moves[-1].version if self.moves else None

    @property
    def agrees(self) -> bool:
        """Whether the registry has the champion that the log ends with."""
        return self.expected in (None, self.champion)


def add_challenger(name: str, version: int) -> tuple[str, ...]:
    """A new version becomes the challenger, and the champion where there is none. Returns its aliases."""
    _set(name, CHALLENGER, version)
    if champion_of(name) is None:
        with contextlib.suppress(PromotionRefusedError):  # another version was first
            promote(name, version, "the first version", None)
    return tuple(alias for alias, number in aliases_of(name).items() if number == version)


def promote(name: str, version: int, why: str, seen: int | None, gate: Mapping[str, str] | None = None) -> Promotion:
    """Make `version` the champion if the champion still is `seen`. Raises PromotionRefusedError, RegistryError."""
    with _locked(name):
        _finish(name)
        champion = champion_of(name)
        if champion != seen:
            raise PromotionRefusedError(
                f"promotion of {name}/{version}",
                f"{_called(seen)} as champion, with which it was compared",
                _called(champion),
                "Evaluate it again: `apf promote` compares it with the current champion.",
            )
        return _move(_new("promote", name, version, champion, why, gate))


def rollback(name: str, why: str) -> Promotion:
    """Make the previous champion the champion again. Raises PromotionRefusedError, RegistryError."""
    with _locked(name):
        _finish(name)
        aliases = aliases_of(name)
        if PREVIOUS not in aliases:
            raise PromotionRefusedError(
                f"rollback of {name}", "a previous champion", "none", "`apf registry show` lists its versions."
            )
        return _move(_new("rollback", name, aliases[PREVIOUS], aliases.get(CHAMPION), why, None))


def history(name: str) -> History:
    """The log, after a move that was cut short is finished."""
    with _locked(name):
        _finish(name)
        return _history(name)


def restore_aliases(name: str) -> History:
    """Give the registry the aliases that the log ends with. Raises RegistryError."""
    with _locked(name):
        _finish(name)
        found = _history(name)
        if found.moves:
            _set(name, PREVIOUS, found.moves[-1].before)
            _set(name, CHAMPION, found.moves[-1].version)
        return _history(name)


def champion_of(name: str) -> int | None:
    """The version that is the champion now."""
    return aliases_of(name).get(CHAMPION)


def _apply(move: Promotion) -> Iterator[str]:
    """Carry out a move that stands in the log, one step after another; each may be done again.

    The version's tag first, then `previous`, then `champion`: whoever reads the alias finds the rest in place.
    """
    version = str(move.version)
    tracker.client().set_model_version_tag(move.name, version, TAG, move.model_dump_json(exclude={"state"}))
    yield "tag"
    _set(move.name, PREVIOUS, move.before)
    yield "previous"
    _set(move.name, CHAMPION, move.version)
    yield "champion"
    _append(move.model_copy(update={"state": "done"}))
    yield "log"


def _move(move: Promotion) -> Promotion:
    find_version(f"models:/{move.name}/{move.version}")  # one that is not there must not get into the log
    if move.version == move.before:
        raise PromotionRefusedError(
            f"{move.kind} of {move.name}/{move.version}", "another version", "the champion itself", "Nothing to do."
        )
    _append(move)
    for _ in _apply(move):
        pass
    return move.model_copy(update={"state": "done"})


def _finish(name: str) -> None:
    """Finish the last move if it was cut short, unless somebody has moved the champion since."""
    moves = _read(name)
    if not moves or moves[-1].state != "begun":
        return
    if champion_of(name) in (moves[-1].before, moves[-1].version):
        for _ in _apply(moves[-1]):
            pass
    else:
        _append(moves[-1].model_copy(update={"state": "void"}))


def _history(name: str) -> History:
    last = {move.id: move for move in _read(name)}  # a later line about a move takes the place of an earlier one
    aliases = aliases_of(name)
    done = tuple(move for move in last.values() if move.state == "done")
    return History(name=name, moves=done, champion=aliases.get(CHAMPION), previous=aliases.get(PREVIOUS))


def _new(
    kind: Literal["promote", "rollback"],
    name: str,
    version: int,
    before: int | None,
    why: str,
    gate: Mapping[str, str] | None,
) -> Promotion:
    return Promotion(
        id=uuid4().hex,
        kind=kind,
        name=name,
        version=version,
        before=before,
        who=f"{getpass.getuser()}@{socket.gethostname()}",
        why=why,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        gate=dict(gate or {}),
    )


def _set(name: str, alias: str, version: int | None) -> None:
    if version is not None:
        tracker.client().set_registered_model_alias(name, alias, str(version))


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with store.lock("promotion-" + fingerprints.digest([name])):
        yield


def log_file(name: str) -> Path:
    """The log of a model's moves."""
    readable = re.sub(r"[^\w.-]", "_", name)
    return store.root() / "promotions" / f"{readable}-{fingerprints.digest([name])[:8]}.jsonl"


def _append(move: Promotion) -> None:
    """Add a line, on the disk before this returns. What a kill has left of a line is ended first."""
    file = log_file(move.name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torn = file.is_file() and not file.read_bytes().endswith(b"\n")
        with file.open("ab") as log:
            log.write(("\n" if torn else "").encode() + move.model_dump_json().encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())
        fingerprints.fsync(file.parent)
    except OSError as error:
        raise store.store_error(error, "promotion log") from error


def _read(name: str) -> list[Promotion]:
    """The lines of the log; a torn line is the trace of a kill before anything was moved, and counts as none."""
    file = log_file(name)
    lines = file.read_bytes().splitlines() if file.is_file() else []
    moves = []
    for number, line in enumerate(lines, 1):
        try:
            read = json.loads(line.decode(errors="replace"))
            line.decode()
            moves.append(Promotion.model_validate(read))
        except json.JSONDecodeError:
            continue
        except (ValidationError, UnicodeDecodeError) as error:
            do = "Remove the line, or move the file: then a new history is started."
            found = line[:80].decode(errors="backslashreplace")
            raise RegistryError(f"{file}:{number}", "a line of the promotion log", found, do) from error
    return moves


def _called(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
