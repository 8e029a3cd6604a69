"""Which results each experiment has made or reused: why a call is not stored, and how many results came from a value.

`stages/.history/<stage>/<digest of the experiment's name>` has a line per result: its key, and a short mark for each
input, module and library that the result depends on. So what is nearest to a call is found in one file, and one record
is read. A line is written when a result is stored or first reused. A folder that is missing is made again from the
records; what an experiment had only reused is then not known.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from contextlib import AbstractContextManager
from contextvars import ContextVar
from hashlib import blake2b
from pathlib import Path
from typing import Any

from apf_tasks.cache import fingerprints, store
from apf_tasks.cache.store import Record
from apf_tasks.context import scoped
from apf_tasks.errors import StoreError

MARK_BYTES = 6
SHOWN = 3
"""Differences that are named."""

_experiment: ContextVar[str] = ContextVar("apf_experiment", default="apf")
current_experiment = _experiment.get


def within_experiment(name: str) -> AbstractContextManager[None]:
    """Within the block, stage calls belong to this experiment."""
    return scoped(_experiment, name)


def note(record: Record) -> None:
    """Write down that the current experiment has this result. Raises StoreError."""
    file = _folder(record.stage) / _name(current_experiment())
    if record.key in _text(file):
        return
    try:
        with store.lock(f"history-{record.stage}"):
            if not file.parent.is_dir():
                _write_again(record.stage)
            if record.key not in _text(file):
                with file.open("a") as lines:
                    lines.write(_line(record))
    except OSError as error:
        raise store.store_error(error, record.stage) from error


def explain_miss(wanted: Record) -> str:
    """Why this call is not stored: the difference to the most similar call that the same experiment has made."""
    partial = store.partial_folder(wanted.stage, wanted.key)
    if partial.exists():
        paused = _text(partial / store.CHECKPOINT_DIR / store.PAUSED)
        return f"goes on from {paused}" if paused else "continues an interrupted run"
    if (folder := store.stage_folder(wanted.stage, wanted.key)).exists():
        return (
            "its stored result is damaged"
            if store.find_damage(folder)
            else "what its stored result refers to no longer exists"
        )
    lines = _lines(wanted.stage, current_experiment())
    if any(line.startswith(wanted.key) for line in lines):
        return "its stored result was deleted"
    return _difference(wanted, lines) if lines else "first time"


def count(stage: str, name: str, value: Any) -> int:
    """How many results of a stage came from this value of one of its inputs."""
    mark = f" {_mark('inputs', name, value)}"
    lines = [line for text in _texts(stage).values() for line in text.splitlines()]
    keys = {line.partition(" ")[0] for line in lines if mark in line}
    return sum((store.stage_folder(stage, key) / store.RECORD).is_file() for key in keys)


def _difference(wanted: Record, lines: list[str]) -> str:
    """What differs from the nearest of the lines whose result is still there; of equally near ones from the latest."""
    marks = set(_marks(wanted))
    name = _mark("inputs", "name", wanted.inputs["name"]) if "name" in wanted.inputs else ""  # of a split
    near = []
    for age, line in enumerate(reversed(lines)):
        key, *its = line.split(" ")
        if not name or name in its:
            near.append((len(marks) + len(its) - 2 * len(marks.intersection(its)), age, key))
    for _, _, key in sorted(near):
        if (record := store.read_record(wanted.stage, key)) is not None:
            said = _differences(record, wanted)
            return ", ".join(said[:SHOWN]) + (f" and {len(said) - SHOWN} more" if len(said) > SHOWN else "")
    return "its earlier results were deleted" if near else "first time"


def _differences(old: Record, new: Record) -> list[str]:
    """What changed from one call to the other, in words."""
    said = []
    for name in sorted(old.inputs.keys() | new.inputs.keys()):
        before, after = old.inputs.get(name), new.inputs.get(name)
        if before != after:
            said.append(f"{name} changed" if name.startswith("content of") else f"{name} {before} → {after}")
    for module in sorted(old.code.keys() | new.code.keys()):
        if old.code.get(module) != new.code.get(module):
            said.append(f"code of {module} changed")
    for library in sorted(old.libraries.keys() | new.libraries.keys()):
        if (before := old.libraries.get(library)) != (after := new.libraries.get(library)):
            said.append(f"{library} {before} → {after}")
    return said


def _folder(stage: str) -> Path:
    return store.root() / "stages" / ".history" / stage


def _name(experiment: str) -> str:
    return fingerprints.digest(experiment)


def _text(file: Path) -> str:
    """What stands in a file; nothing where there is none."""
    try:
        return file.read_text()
    except OSError:
        return ""


def _lines(stage: str, experiment: str) -> list[str]:
    """The lines of an experiment, the oldest first."""
    name, folder = _name(experiment), _folder(stage)
    text = _text(folder / name) if folder.is_dir() else _texts(stage).get(name, "")
    return [line for line in text.splitlines() if line]


def _texts(stage: str) -> dict[str, str]:
    """File name -> its lines, for all experiments that have a result of a stage; made again where they are missing."""
    folder = _folder(stage)
    if not folder.is_dir() and store.stage_folder(stage).is_dir():
        # a plan may look at a store that it cannot write
        with contextlib.suppress(OSError, StoreError), store.lock(f"history-{stage}"):
            if not folder.is_dir():
                _write_again(stage)
    if folder.is_dir():
        return {file.name: _text(file) for file in folder.iterdir()}
    return _from_records(stage)


def _write_again(stage: str) -> None:
    """The folder of a stage, whole or not there. Under its lock."""
    folder = _folder(stage)
    new = folder.with_name(f"{stage}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, text in _from_records(stage).items():
        (new / name).write_text(text)
    new.rename(folder)


def _from_records(stage: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for record in store.records(stage):
        name = _name(record.experiment)
        texts[name] = texts.get(name, "") + _line(record)
    return texts


def _line(record: Record) -> str:
    """Begins with the end of the line before: what a crash has left there harms itself alone."""
    return "\n" + " ".join([record.key, *_marks(record)])


def _marks(record: Record) -> list[str]:
    groups = {"inputs": record.inputs, "code": record.code, "libraries": record.libraries}
    return [_mark(group, name, value) for group, values in groups.items() for name, value in values.items()]


def _mark(group: str, name: str, value: Any) -> str:
    """Short for one value that a result depends on."""
    text = json.dumps([group, name, value], sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=MARK_BYTES).hexdigest()
