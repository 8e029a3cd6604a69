"""What a recorded run depended on, beside what is here today."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import NamedTuple

from apf_tasks import stages
from apf_tasks.cache.code_digest import code_digests
from apf_tasks.cache.environment import environment
from apf_tasks.cache.stage import Stage
from apf_tasks.cache.workspace import current_workspace
from apf_tasks.errors import ApfError
from apf_tasks.params.file import Experiment
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.sources.data import data_identity
from apf_tasks.tracking.provenance import Provenance, StageFacts

CANNOT_BE_READ = "cannot be read: "
NOT_RECORDED = "not recorded"
ENVIRONMENT = ("python", "system", "cpu", "threads")
"""What an environment names beside libraries."""
SHOWN = 12
"""Characters of a digest that people are shown."""


class Difference(NamedTuple):
    """One thing that a result depends on."""

    what: str
    then: str
    now: str

    @property
    def same(self) -> bool:
        """Whether it is today as it was recorded."""
        return self.then == self.now


@contextmanager
def in_original_folder(recorded: Provenance, params: Experiment) -> Iterator[Path | None]:
    """Work in this folder when the run's files are here, else in the folder that it ran in, when they are there.

    Gives that other folder, or None.
    """
    here, there = Path.cwd(), Path(recorded.folder)
    if there == here or not there.is_dir() or _all_there(params):
        yield None
        return
    with current_workspace().active():  # `mlruns` would be another one over there
        with chdir(there):
            if _all_there(params):
                yield there
                return
        yield None


def _all_there(params: Experiment) -> bool:
    return not any(found.startswith(CANNOT_BE_READ) for found in contents_today(params).values())


def provenance_diff(recorded: Provenance, params: Experiment) -> list[Difference]:
    """Data, base model, code of every stage, python, system, CPU, threads and libraries; the same ones too."""
    return [*_contents(recorded, params), *_code(recorded.stages), *_environment(recorded.stages)]


def contents_today(params: Experiment) -> dict[str, str]:
    """What lies outside the params -> identity of its content, or why it cannot be read."""
    found = {"data.source": _try(lambda: data_identity(params.data))}
    if isinstance(params, WordVectorParams):
        return found
    from apf_tasks.sources.models import model_identity, tokenizer_identity

    model, tokenizer = params.model, params.tokenizer
    if model.init == "pretrained":
        found["model.base"] = _try(lambda: model_identity(model))
    if tokenizer.base is not None:
        found["tokenizer.base"] = _try(lambda: tokenizer_identity(tokenizer))
    return found


def _try(identity: Callable[[], str]) -> str:
    try:
        return identity()
    except ApfError as error:
        return f"{CANNOT_BE_READ}{error.found}"


def _contents(recorded: Provenance, params: Experiment) -> list[Difference]:
    lines = []
    for name, now in contents_today(params).items():
        then = next((str(f.inputs[key]) for f in recorded.stages if (key := f"content of {name}") in f.inputs), "")
        lines.append(Difference(f"content of {name}", _shown(then) or NOT_RECORDED, _shown(now)))
    return lines


def _shown(identity: str) -> str:
    """The start of a digest; sentences and names whole."""
    plain = identity.isalnum() and len(identity) > SHOWN
    return f"{identity[:SHOWN]}…" if plain else identity


def _code(facts: tuple[StageFacts, ...]) -> list[Difference]:
    """A line per stage whose code is another; one line for all when none is."""
    changed = {f.stage: found for f in facts if (found := _code_change(f))}
    lines = [Difference(f"code of {stage}", "", change) for stage, change in changed.items()]
    alike = f"{len({f.stage for f in facts})} stages"
    return lines or [Difference("code", alike, alike)]


def _code_change(facts: StageFacts) -> str:
    """Which modules below apf_tasks have another syntax tree than they had; "" when none."""
    stage = getattr(stages, facts.stage, None)
    if not isinstance(stage, Stage):
        return "this stage no longer exists"
    family = facts.inputs.get("family.name")
    try:
        now = code_digests(stage.code, family)
    except OSError:
        return f"the family {family} is gone"
    modules = sorted(name for name in facts.code.keys() | now.keys() if facts.code.get(name) != now.get(name))
    return ", ".join(name.removeprefix("apf_tasks.") for name in modules) + (" changed" if modules else "")


def _environment(facts: tuple[StageFacts, ...]) -> list[Difference]:
    """A line for python, system, cpu, threads, and for each library that is another; one for those that are not."""
    libraries = [name for f in facts for name in f.environment]
    now = environment(name for name in libraries if name not in ENVIRONMENT)
    lines = [Difference(name, _then(facts, name, value), value) for name, value in now.items()]
    shown = [line for line in lines if line.what in ENVIRONMENT or not line.same]
    alike = [line for line in lines if line.what not in ENVIRONMENT and line.same]
    versions = ", ".join(f"{line.what} {line.now}" for line in alike)
    return [*shown, *([Difference("libraries", versions, versions)] if alike else [])]


def _then(facts: tuple[StageFacts, ...], name: str, now: str) -> str:
    """The recorded value; stages that were computed elsewhere, in an earlier run, are named with theirs."""
    values: dict[str, list[str]] = {}
    for f in facts:
        if name in f.environment or not f.environment:
            values.setdefault(f.environment.get(name, NOT_RECORDED), []).append(f.stage)
    if not values:
        return now
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(dict.fromkeys(names))})" for value, names in values.items())
