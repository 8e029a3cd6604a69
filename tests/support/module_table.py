"""The table of packages in docs/ARCHITECTURE.md, from their docstrings, in the order of the floors in pyproject.toml.

`python -m tests.support.module_table` writes it into the page.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import PROJECT

PAGE = PROJECT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- generated: python -m tests.support.module_table -->\n", "<!-- end of what is generated -->\n"


def table() -> str:
    """A row for every package and every module outside of one, ground floor first."""
    rows = [f"| `{name}` | {says} | {', '.join(modules)} |" for name, says, modules in _rows()]
    return "\n".join(["| package | what it holds | its modules |", "|---|---|---|", *rows, ""])


def page_with_table() -> str:
    """The page as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def floors() -> list[str]:
    """What stands in apf_tasks, ground floor first."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["apf_tasks"])
    return [name.strip(" ()") for layer in reversed(layers) for name in layer.split("|")]


def _rows() -> Iterator[tuple[str, str, list[str]]]:
    for name in floors():
        path = PROJECT / "apf_tasks" / name
        yield from _package(path) if path.is_dir() else [_module(path.with_suffix(".py"))]
    yield from _package(PROJECT / "flows")


def _package(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    modules = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    yield f"{folder.relative_to(PROJECT)}/", _first_sentence(folder / "__init__.py"), modules
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _package(inner)


def _module(path: Path) -> tuple[str, str, list[str]]:
    return str(path.relative_to(PROJECT)), _first_sentence(path), []


def _first_sentence(path: Path) -> str:
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(said.split("\n\n")[0].split()).replace("|", "\\|").split(". ")[0].rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(page_with_table())
