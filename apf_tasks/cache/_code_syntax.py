"""What one Python file has for `code_digest.py`: its definitions, and what each of them is and uses, by syntax tree."""

from __future__ import annotations

import ast
import gc
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.cache.fingerprints import digest

ONE_AT_A_TIME = threading.Lock()
HOOKS = {"field_validator", "model_validator", "field_serializer", "model_serializer", "computed_field"}
"""Decorators of what pydantic calls by itself."""

WHOLE, CALLED = "*", "()"
Reference = tuple[str, str]
"""Module and name in it; `*` is the whole module, "" are its statements that define nothing."""
IsModule = Callable[[str], bool]
"""Whether a dotted name is a module."""


class Code(NamedTuple):
    """A module, or a definition in one."""

    digest: str
    imports: frozenset[Reference]
    """By its own statements, used or not."""
    uses: frozenset[Reference]
    attributes: frozenset[str]
    """Names after a dot."""
    libraries: frozenset[str]
    """Top-level modules that it imports from elsewhere."""


class Module:
    """What can be followed in a file."""

    def __init__(self, module: str, path: Path, is_module: IsModule, parts: bool, values: bool) -> None:
        """`parts`: whether its definitions are wanted one by one; `values`: those of its classes as well."""
        tree = _tree(path.read_text(encoding="utf-8"))
        _strip(tree)
        self.module, self.is_module = module, is_module
        self.package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        self.statements: dict[str, list[ast.AST]] = {WHOLE: [tree]}
        """Name, `Class()` or `Class.member` -> what defines it. A module that counts as a whole has the whole alone."""
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        self.imports = {local: use for local, use in _imported(top, self.package, is_module) if local}
        """Name -> what it is elsewhere."""
        self._codes: dict[str, Code] = {}
        for statement in tree.body if parts else ():
            for name, node in _defined(statement, values):
                self.statements.setdefault(name, []).append(node)

    def code(self, name: str) -> Code:
        """What a definition is, and what it uses: of this module, of what that imports, and of its own imports."""
        if name not in self._codes:
            self._codes[name] = self._read(name)
        return self._codes[name]

    def _read(self, name: str) -> Code:
        reader = _Reader(parses=not name.endswith(CALLED))
        nodes = self.statements.get(name, [])
        for node in nodes:
            reader.visit(node)
        whole = name == WHOLE
        own = list(_imported(reader.imports, self.package, self.is_module))
        known = ({} if whole else self.imports) | {local: use for local, use in own if local}
        uses = {use for local, use in own if not local}
        for local, attribute in reader.names:
            call = CALLED if attribute == CALLED else ""
            if local in known:
                module, what = known[local]
                uses.add((module, attribute.removesuffix(CALLED) or WHOLE) if what == WHOLE else (module, what + call))
            elif not whole and local in self.statements:
                uses.add((self.module, local + call))
        libraries = frozenset(_libraries(reader.imports, self.package))
        text, imports = digest([_text(n) for n in nodes]), frozenset(use for _, use in own)
        return Code(text, imports, frozenset(uses), frozenset(reader.attributes), libraries)


def _strip(node: ast.AST) -> None:
    """Take away what cannot change a result."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        if isinstance(inner := getattr(node, block, None), list):
            kept = [b for b in inner if not _is_docstring(b) and not _is_for_types(b)]
            setattr(node, block, kept or ([ast.Pass()] if inner else []))
            for statement in kept:
                _strip(statement)
    if isinstance(node, ast.FunctionDef):
        node.decorator_list = [d for d in node.decorator_list if not _is_stage(d)]


def _defined(node: ast.stmt, value: bool) -> Iterator[tuple[str, ast.AST]]:
    """What a statement of a module defines, with its syntax tree; "" where it does something else."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.ClassDef) and value:
        members = [(name, inner) for inner in node.body if (name := _member(inner))]
        taken = {id(inner) for _, inner in members}
        kept = [inner for inner in node.body if id(inner) not in taken] or [ast.Pass()]
        rest = ast.ClassDef(node.name, node.bases, node.keywords, kept, node.decorator_list)
        yield from ((node.name, rest), (node.name + CALLED, rest))
        yield from ((f"{node.name}.{name}", inner) for name, inner in members)
    elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, node
    else:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)]
        is_assignment = isinstance(node, ast.Assign | ast.AnnAssign) and names
        yield from ((name, node) for name in (names if is_assignment else [""]))


def _member(node: ast.stmt) -> str:
    """The name of what in a class counts only where it is asked for: no field, and nothing that runs by itself."""
    if isinstance(node, ast.FunctionDef):
        hooks = {n.id for d in node.decorator_list for n in ast.walk(d) if isinstance(n, ast.Name)} & HOOKS
        return "" if hooks or node.name.startswith("__") or node.name.startswith("model_") else node.name
    if (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and "ClassVar" in ast.dump(node.annotation)
    ):
        return node.target.id
    return ""


class _Reader(ast.NodeVisitor):
    """The names and attributes that code looks up when it runs: annotations of functions are not looked up."""

    def __init__(self, parses: bool) -> None:
        self.parses = parses
        """Whether values of a class may be made from plain ones, by the types of its fields."""
        self.names: set[tuple[str, str]] = set()
        """With the attribute that is taken of it, CALLED where it is called, "" where it is used as it is."""
        self.attributes: set[str] = set()
        self.imports: list[ast.Import | ast.ImportFrom] = []

    def visit_Import(self, node: ast.Import) -> None:
        self.imports.append(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports.append(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add((node.id, ""))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.attributes.add(node.attr)
        if isinstance(node.value, ast.Name):
            self.names.add((node.value.id, node.attr))
        else:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "attrgetter", "methodcaller"):
            self.attributes |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
        if isinstance(node.func, ast.Name) and all(k.arg for k in node.keywords):  # mypy knows what a call passes
            self.names.add((node.func.id, CALLED))
        else:
            self.visit(node.func)
        for inner in (*node.args, *node.keywords):
            self.visit(inner)

    def visit_arg(self, node: ast.arg) -> None:
        """Its annotation is for readers."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for inner in (*node.decorator_list, node.args, *node.body):
            self.visit(inner)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        for inner in (node.target, node.value):
            if inner is not None:
                self.visit(inner)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Types of fields make the values of a class that has a base to read them."""
        self.generic_visit(node)
        if (
            self.parses
            and node.bases
            and not any(isinstance(b, ast.Name) and b.id in ("NamedTuple", "Protocol") for b in node.bases)
        ):
            for inner in node.body:
                if isinstance(inner, ast.AnnAssign):
                    self.visit(inner.annotation)


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


def _text(node: ast.AST) -> str:
    """The syntax tree as text; as `ast.dump`, in half the time."""
    parts: list[str] = []

    def write(value: Any) -> None:
        if isinstance(value, ast.AST):
            parts.append(f"{type(value).__name__}(")
            for name in value._fields:
                if name != "ctx":  # follows from the place
                    write(getattr(value, name, None))
            parts.append(")")
        elif isinstance(value, list):
            parts.append("[")
            for inner in value:
                write(inner)
            parts.append("]")
        else:
            parts.append(f"{value!r},")

    write(node)
    return "".join(parts)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_stage(node: ast.expr) -> bool:
    """Whether it makes a stage of a function: what it says is in the key by itself."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "stage"


def _imported(nodes: Iterable[ast.stmt], package: str, is_module: IsModule) -> Iterator[tuple[str, Reference]]:
    """Local name ("" where there is none) -> what of apf_tasks, or of the own package, it is, for every import."""
    followed = {"apf_tasks", package.partition(".")[0]}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in followed:
                    yield alias.asname or "", (alias.name, WHOLE)
        elif isinstance(node, ast.ImportFrom) and (module := _from(node, package)).split(".")[0] in followed:
            for alias in node.names:
                name = f"{module}.{alias.name}"
                whole = alias.name != WHOLE and is_module(name)
                local = "" if alias.name == WHOLE else alias.asname or alias.name
                yield local, (name, WHOLE) if whole else (module, alias.name)


def _from(node: ast.ImportFrom, package: str) -> str:
    """The module that an import names, in full."""
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _libraries(nodes: Iterable[ast.Import | ast.ImportFrom], package: str) -> Iterator[str]:
    """Top-level modules from elsewhere."""
    ours = ("apf_tasks", "__future__", package.partition(".")[0])
    for node in nodes:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        yield from (top for name in names if (top := name.split(".")[0]) not in ours)
