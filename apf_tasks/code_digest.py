"""Digests of code: what a stage's result depends on, by syntax tree.

Comments, docstrings and imports that serve types alone do not count.

Followed from a stage's module through every import of apf_tasks, wherever in a module it stands. Modules that only
report, record or name things cannot change a result and are not followed.
"""

from __future__ import annotations

import ast
import gc
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from apf_tasks.store import digest

PACKAGE = Path(__file__).parent
VALUES = "artifacts errors families frozen model_params params word_vectors.artifacts word_vectors.params"
"""They enter keys as inputs."""
KEEPERS = "code_digest history outbox progress registry stage stages store tracker tracking"
"""They print, record and keep."""
FETCHERS = "hub model_sources package_index pip_settings sources unpacking"
"""They fetch what is identified in the key."""
ONE_AT_A_TIME = threading.Lock()
WITHOUT_INFLUENCE = frozenset(f"apf_tasks.{name}" for name in f"{VALUES} {KEEPERS} {FETCHERS}".split())


def code_digests(modules: Iterable[str], family: str | None = None) -> dict[str, str]:
    """Module -> digest for the given modules (names below apf_tasks), all they import, and the family's own module.

    A family's baselines belong to the one stage that compares with them: they count where the stage names them.
    """
    modules = tuple(modules)
    wanted = {f"apf_tasks.{name}" for name in modules}
    if family is not None:
        wanted.add(f"apf_tasks.families.{family}")
    followed: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        followed[name], imports = _read(_source(name))
        if name.startswith("apf_tasks.families.") and "baselines" not in modules:
            imports -= {"apf_tasks.baselines"}
        wanted |= imports - WITHOUT_INFLUENCE - followed.keys()
    return dict(sorted(followed.items()))


def _source(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _read(path: Path) -> tuple[str, frozenset[str]]:
    status = path.stat()
    return _parse(path, status.st_mtime_ns, status.st_size)


@cache
def _parse(path: Path, modified_ns: int, size: int) -> tuple[str, frozenset[str]]:
    """Digest and apf_tasks imports of one module, remembered for as long as the file does not change."""
    tree = _tree(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body:
            node.body = [b for b in body if not _is_docstring(b) and not _is_for_types(b)] or [ast.Pass()]  # type: ignore[attr-defined]
    imports = {name for node in ast.walk(tree) for name in _imported(node)}
    return digest(ast.dump(tree)), frozenset(imports)


def _tree(text: str) -> ast.Module:
    """The syntax tree, built in one go.

    CPython 3.11 counts the depth of all threads' trees in one place and raises SystemError where another thread parses
    meanwhile (github.com/python/cpython/issues/106905); only a garbage collection lets one in.
    """
    with ONE_AT_A_TIME:
        collects = gc.isenabled()
        gc.disable()
        try:
            return ast.parse(text)
        finally:
            if collects:
                gc.enable()


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _imported(node: ast.AST) -> list[str]:
    """The apf_tasks modules that one import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.startswith("apf_tasks.")]
    if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("apf_tasks"):
        return []
    module = str(node.module)
    modules = [name for alias in node.names if _source(name := f"{module}.{alias.name}").is_file()]
    return modules if modules or module == "apf_tasks" else [module]
