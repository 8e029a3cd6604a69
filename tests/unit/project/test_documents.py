"""The documents say what the code does, and name files and commands that there are."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from apf_tasks.params.file import written_in
from apf_tasks.params.reference import reference
from tests.support.module_table import page_with_table
from tests.support.paths import PROJECT

MODULES = sorted([*PROJECT.glob("apf_tasks/**/*.py"), *PROJECT.glob("flows/**/*.py")])
PAGES = sorted(
    [
        PROJECT / "README.md",
        PROJECT / "CONTRIBUTING.md",
        PROJECT / "benchmarks/README.md",
        *PROJECT.glob("docs/**/*.md"),
    ]
)
OURS = ("apf_tasks/", "flows/", "tests/", "docs/", "params/", "benchmarks/", "deploy/")
THEIRS = {"params/reviews.yaml", "params/tickets.yaml", "params/NAME.yaml", "params/FAMILY-NAME.yaml"}
"""Files that a reader makes, in examples."""
LIGHT = [
    "apf_tasks/__init__.py",
    "apf_tasks/api.py",
    "apf_tasks/params/experiment.py",
    "apf_tasks/params/file.py",
    "apf_tasks/stages.py",
    "flows/cli/main.py",
    "apf_tasks/cache/stage.py",
]


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def named(text: str) -> Iterator[str]:
    """What a text calls by a path of this project, in backticks: `stages.py`, `apf_tasks/data/`."""
    for word in re.findall(r"`([\w./-]+)`", text):
        if word not in THEIRS and (word.startswith(OURS) or re.fullmatch(r"[\w/]+\.py", word)):
            yield word


def linked(text: str) -> Iterator[str]:
    """Targets of a text's links to files."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            yield target


def headings(page: Path) -> set[str]:
    """The anchors of a page."""
    said = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in said}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_on_a_page_is_there(page: Path) -> None:
    """From the project's folder, from apf_tasks/ or beside the page; links from the page."""
    text = prose(page)
    missing = [
        p for p in named(text) if not any((top / p).exists() for top in (PROJECT, PROJECT / "apf_tasks", page.parent))
    ]
    broken = [target for target in linked(text) if not (page.parent / target).exists()]
    assert (missing, broken) == ([], [])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    links = re.findall(r"\]\(([^):]*)#([^)]+)\)", page.read_text())
    broken = [
        f"{file}#{anchor}" for file, anchor in links if anchor not in headings(page.parent / file if file else page)
    ]
    assert broken == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_path_in_a_docstring_is_there(path: Path) -> None:
    """From the project's folder, from apf_tasks/, or beside the module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    tops = (PROJECT, PROJECT / "apf_tasks", path.parent)
    assert [p for text in texts for p in named(text) if not any((top / p).exists() for top in tops)] == []


def commands(page: Path) -> list[list[str]]:
    """The `apf` commands in the bash blocks of a page."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if line.startswith("apf ")]
    return [words[1:] for words in split]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_every_command_on_a_page_can_be_parsed(page: Path) -> None:
    """Commands, options and the number of arguments, without running any."""
    from flows.cli.main import app

    for words in commands(page):
        command, context = typer.main.get_command(app), None
        arguments = list(words)
        while hasattr(command, "commands"):
            command, context = command.commands[arguments.pop(0)], context
        command.make_context(words[0], arguments)  # raises a UsageError


def test_the_params_reference_is_as_generated() -> None:
    page = (PROJECT / "docs" / "PARAMS.md").read_text()
    assert page == reference(), "run: python -m apf_tasks.params.reference > docs/PARAMS.md"


def test_the_table_of_packages_is_as_generated() -> None:
    page = (PROJECT / "docs" / "ARCHITECTURE.md").read_text()
    assert page == page_with_table(), "run: python -m tests.support.module_table"


def test_the_params_reference_has_every_key_of_every_params_file() -> None:
    """Section by section, since sections share names of keys."""
    page = reference()
    sections = {part.split("\n")[0]: part for part in page.split("\n## ")}
    for path in sorted((PROJECT / "params").rglob("*.yaml")):
        for name, section in written_in(path).items():
            assert f"| `{name}` |" in page, path
            if name != "family" and isinstance(section, dict):
                for key in section:
                    assert f"| `{key}` |" in sections[name], f"{path}: {name}.{key}"


@pytest.mark.parametrize("name", LIGHT)
def test_what_answers_at_once_imports_nothing_heavy(name: str) -> None:
    tree = ast.parse((PROJECT / name).read_text())
    found = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module.split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    assert not found & {"torch", "transformers", "mlflow", "prefect", "pandas", "datasets", "sklearn"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            most = 80 if node.name == "train_steps" else 45
            assert (node.end_lineno or 0) - node.lineno < most, f"{node.name} is too long"


@pytest.mark.parametrize("top", ["apf_tasks", "flows", "tests"])
def test_folders_stay_small(top: str) -> None:
    folders = {path.parent for path in (PROJECT / top).rglob("*.py")}
    assert {name_of(f): n for f in folders if (n := len(list(f.glob("*.py")))) > 15} == {}
