"""The documents say what the code does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from apf_tasks.params.file import written_in
from apf_tasks.params.reference import reference
from tests.support.paths import PROJECT

MODULES = sorted([*PROJECT.glob("apf_tasks/**/*.py"), *PROJECT.glob("flows/*.py")])
MAY_IMPORT = {
    "prefect": {"flows/orchestration/task.py"},
    "mlflow": {
        "apf_tasks/tracking/client.py",
        "apf_tasks/tracking/run_logger.py",
        "apf_tasks/tracking/registry.py",
        "apf_tasks/tracking/past_runs.py",
        "apf_tasks/tracking/models.py",
        "apf_tasks/serving/served_model.py",
        "apf_tasks/word_vectors/served_model.py",
    },
}
LIGHT = [
    "apf_tasks/params/experiment.py",
    "apf_tasks/params/file.py",
    "apf_tasks/stages.py",
    "flows/cli/main.py",
    "apf_tasks/cache/stage.py",
]


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def imports(tree: ast.AST, only_top_level: bool = False) -> set[str]:
    """First parts of the modules a file imports."""
    found = set()
    for node in tree.body if only_top_level and isinstance(tree, ast.Module) else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_the_params_reference_is_as_generated() -> None:
    page = (PROJECT / "docs" / "PARAMS.md").read_text()
    assert page == reference(), "run: python -m apf_tasks.params.reference > docs/PARAMS.md"


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


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_libraries_are_imported_where_the_house_says(path: Path) -> None:
    found = imports(ast.parse(path.read_text()))
    for library, allowed in MAY_IMPORT.items():
        in_flows = library == "prefect" and path.parent.name == "flows"
        assert library not in found or in_flows or name_of(path) in allowed


@pytest.mark.parametrize("name", LIGHT)
def test_what_answers_at_once_imports_nothing_heavy(name: str) -> None:
    found = imports(ast.parse((PROJECT / name).read_text()), only_top_level=True)
    assert not found & {"torch", "transformers", "mlflow", "prefect", "pandas", "datasets", "sklearn"}


@pytest.mark.parametrize("path", sorted(PROJECT.glob("apf_tasks/families/*.py")), ids=name_of)
def test_families_know_no_other_family(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []  # a shared part may name the type of a family's params
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("apf_tasks.families."):
            assert node.module.split(".")[2].startswith("_")  # type: ignore[union-attr]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            most = 80 if node.name == "train_steps" else 45
            assert (node.end_lineno or 0) - node.lineno < most, f"{node.name} is too long"
