"""Digests of code: what a stage's result depends on, by syntax tree.

Comments, docstrings and imports that serve types alone do not count.

Followed from a stage's function through every import of apf_tasks, wherever in a module it stands. A module counts as a
whole, except those in `WITHOUT_INFLUENCE`: of these count the definitions that followed code takes, and what those use.
Classes of `VALUES` come as arguments, without an import: their methods and properties count where followed code has an
attribute of that name, their fields and validators where it makes an instance.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from apf_tasks.cache._code_syntax import CALLED, WHOLE, Code, Module, Reference
from apf_tasks.cache.fingerprints import digest
from apf_tasks.params.family import module_name

PACKAGE = Path(__file__).parents[1]

BASELINES, FAMILIES = "apf_tasks.families.classification.baselines", "apf_tasks.families"
VALUES = frozenset(
    f"apf_tasks.{name}"
    for name in (
        "artifacts", "family", "inputs", "params.architectures", "params.base", "params.data", "params.experiment",
        "params.family", "params.gate", "params.model", "params.optimizers", "params.search", "params.train",
        "params.word_vectors", "word_vectors.artifacts",
    )
)  # fmt: skip
"""Modules of what stages take and give: handles, params, and the families' record."""
WITHOUT_INFLUENCE = {
    f"apf_tasks.{module}": frozenset(names.split())
    for module, names in {
        "cache.code_digest": "code_digests",
        "cache.fingerprints": "fsync",
        "cache.journal": "current_label labelled_as",
        "cache.stage": "",
        "cache.workspace": "current_workspace",
        "cache.store": "CHECKPOINT_DIR lock root store_error",
        "context": "scoped",
        "errors": "ApfError DataError DivergedError InterruptedByUser MissingModelError ModelError ParamsError"
        " PromotionRefusedError RegistryError SourceError UnsuitableParamsError UntrainableDataError WorkerDiedError"
        " WorkersError fails_trial is_system_error portable",
        "params.experiment": "Params.metric",
        "params.family": "family_module",
        "runtime.progress": "current_listener file_listener listening progress read_moment throttled_logger",
        "sources.data": "missing_path_error",
        "sources.hub": "TIMEOUT_SECONDS _resolve unreachable",
        "sources.models": "_built _check_model_files",
        "sources.package_index": "cannot_write fetch",
        "stages": "",
        "tracking.tracker": "client fluent_api",
        "tracking.registry": "aliases_of download_model find_version",
        "tracking.run_logger": "TrialRun current_pipeline current_run trial_run within",
        "user_cache": "cache_folder",
        "word_vectors.stages": "",
    }.items()
}
"""Module -> its names that cannot change a result: they refuse, report, record, or fetch what is identified in the key.
Any other definition that followed code takes from it counts."""
FOLLOWED_BY_DEFINITION = VALUES | WITHOUT_INFLUENCE.keys()
"""Modules that count by definitions."""

Stamp = tuple[int, int]
_remembered: dict[tuple[Path, tuple[str, ...], str | None], tuple[dict[str, Stamp], dict[str, str]]] = {}


def code_digests(roots: Iterable[str], family: str | None = None) -> dict[str, str]:
    """Module -> digest of what counts in it: of the roots (names below apf_tasks, of modules or of definitions), of all
    that they use, and of the family's own module. A family of one's own is followed in its own package.

    A family's baselines belong to the one stage that compares with them: they count where the stage names them.
    """
    asked = (PACKAGE, tuple(roots), family)
    known, digests = _remembered.get(asked, ({}, {}))
    if not known or any(_stamp(path) != stamp for path, stamp in known.items()):
        codes, known = _follow(asked[1], family)
        found: dict[str, dict[str, str]] = {}
        for (module, name), code in codes.items():
            found.setdefault(module, {})[name] = code.digest
        digests = {module: names.get(WHOLE) or digest(names) for module, names in sorted(found.items())}
        _remembered[asked] = known, digests
    return dict(digests)


def followed(roots: Iterable[str], family: str | None = None) -> dict[Reference, Code]:
    """All that counts, one by one."""
    return _follow(roots, family)[0]


def _follow(roots: Iterable[str], family: str | None) -> tuple[dict[Reference, Code], dict[str, Stamp]]:
    """What counts, and how the files were that say so."""
    wanted = {_root(f"apf_tasks.{name}") for name in roots}
    compares = (BASELINES, WHOLE) in wanted
    if family is not None:
        wanted.add((module_name(family), WHOLE))
    stamps: dict[str, Stamp] = {}

    @cache
    def files(module: str) -> Module:
        path = str(_source(module))
        stamps[path] = stamp = _stamp(path)
        return _parse(module, path, stamp)

    members = _members({module: files(module) for module in VALUES})
    found: dict[Reference, Code] = {}
    seen: set[Reference] = set()
    attributes: set[str] = set()
    while wanted:
        use = wanted.pop()
        seen.add(use)
        for module, name in _meant(use, files):
            if (module, name) in found:
                continue
            code = found[module, name] = files(module).code(name)
            uses = code.uses | {u for u in code.imports if u[0] not in FOLLOWED_BY_DEFINITION}
            baselines = {u for u in uses if u[0] == BASELINES and _is_of_a_family(module) and not compares}
            called = {member for a in code.attributes - attributes for member in members.get(a, ())}
            attributes |= code.attributes
            wanted |= (uses | called) - baselines - seen
    return found, stamps


def _is_of_a_family(module: str) -> bool:
    return module.startswith(FAMILIES) or not module.startswith("apf_tasks.")


def _root(name: str) -> Reference:
    module, _, last = name.rpartition(".")
    if _is_module(name):
        return name, WHOLE
    if not module.partition(".")[2]:
        raise ModuleNotFoundError(name)
    return module, last


def _members(values: dict[str, Module]) -> dict[str, list[Reference]]:
    """Attribute -> the methods and properties that it may mean."""
    found: dict[str, list[Reference]] = {}
    for module, file in values.items():
        for name in file.statements:
            if "." in name:
                found.setdefault(name.rpartition(".")[2], []).append((module, name))
    return found


def _meant(use: Reference, files: Callable[[str], Module]) -> list[Reference]:
    """Where a name taken from a module is defined: what a module has from elsewhere is followed to there."""
    module, name = use
    if name.removesuffix(CALLED) in WITHOUT_INFLUENCE.get(module, ()):
        return []
    file = files(module)
    name, call = name.removesuffix(CALLED), CALLED if name.endswith(CALLED) else ""
    if name != WHOLE and name + call in file.statements:
        return [(module, name + call), (module, "")]
    if name != WHOLE and name in file.statements:
        return [(module, name), (module, "")]
    whole = [] if module in FOLLOWED_BY_DEFINITION and name in file.imports else [(module, WHOLE)]
    if name in file.imports:
        return whole + _meant(_called(file.imports[name], call), files)
    if name != WHOLE and _is_module(f"{module}.{name}"):
        return [*whole, (f"{module}.{name}", WHOLE)]
    return whole


def _called(use: Reference, call: str) -> Reference:
    return use if use[1] == WHOLE else (use[0], use[1] + call)


def _source(module: str) -> Path:
    top, *inner = module.split(".")
    path = PACKAGE.joinpath(*inner) if top == "apf_tasks" else _own_folder(top).joinpath(*inner)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _own_folder(package: str) -> Path:
    """Where the package of a family of one's own lies; it has been imported when the params were read."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return Path(package)
    return Path(next(iter(found.submodule_search_locations)))


def _is_module(name: str) -> bool:
    return _source(name).is_file()


def _stamp(path: str) -> Stamp:
    """Another one when the file changes."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


@cache
def _parse(module: str, path: str, stamp: Stamp) -> Module:
    """Remembered for as long as the file does not change. OSError where there is none."""
    return Module(module, Path(path), _is_module, module in FOLLOWED_BY_DEFINITION, module in VALUES)


def root_of(function: Callable[..., Any]) -> list[str]:
    """Where a function of apf_tasks is defined, as a root."""
    package, _, module = function.__module__.partition(".")
    return [f"{module}.{function.__qualname__}"] if package == "apf_tasks" else []
