"""`import apf_tasks`: what is public, and that nothing heavy is imported for it."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import apf_tasks
from tests.support.paths import PROJECT

HEAVY = ("torch", "transformers", "mlflow", "prefect", "pandas", "sklearn", "datasets")


def test_every_public_name_is_there_and_typed() -> None:
    """`__all__` is a literal, and type checkers are told of the same names."""
    tree = ast.parse((PROJECT / "apf_tasks" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(typed) == apf_tasks.__all__
    for name in apf_tasks.__all__:
        assert getattr(apf_tasks, name) is getattr(apf_tasks, name)
        assert name in dir(apf_tasks)


def test_an_unknown_name_is_answered_with_the_public_ones() -> None:
    with pytest.raises(AttributeError, match=r"'trian'; public: .*load_params, plan, promote, run"):
        _ = apf_tasks.trian


def test_the_import_and_the_reading_of_params_are_light() -> None:
    code = (
        "import sys, apf_tasks as apf; dir(apf)\n"
        "apf.load_params('params/sentiment.yaml'); apf.Family, apf.errors, apf.artifacts, apf.run\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
