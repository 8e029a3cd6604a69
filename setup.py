"""The wheel: as pyproject.toml says, but with the flows as `apf_flows`, and with what `apf init` writes.

A package called `flows` in site-packages would hide, or be hidden by, the `flows/` of whoever installs this. Flows
import each other by their full names, because Prefect loads `flows/….py` by path in a checkout; so the names are
rewritten here. An editable install keeps `flows`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
EXAMPLE = "sentiment.yaml", "data/sentiment.jsonl"


class BuildWheel(build_py):
    """Modules and data of the wheel."""

    def run(self) -> None:
        """Copy as usual, then give the flows their installed name."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        target = built / "apf_flows"
        shutil.rmtree(target, ignore_errors=True)
        (built / "flows").rename(target)
        modules = "|".join(sorted(path.stem for path in target.iterdir() if path.stem != "__init__"))
        for path in target.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(rf"(?<![\w./])flows(?=\.(?:{modules})\b)", "apf_flows", text), encoding="utf-8")
        command = built / "apf_tasks" / "command.py"
        text = command.read_text(encoding="utf-8")
        command.write_text(text.replace('FLOWS = "flows"', 'FLOWS = "apf_flows"'), encoding="utf-8")
        shutil.copytree(ROOT / "docs", target / "docs", ignore=shutil.ignore_patterns("images"))
        (target / "example" / "data").mkdir(parents=True)
        for name in EXAMPLE:
            shutil.copy2(ROOT / "params" / "smoke" / name, target / "example" / name)


class NameWheel(bdist_wheel):
    """What the wheel says of itself."""

    def write_wheelfile(self, wheelfile_base: str, *generator: str) -> None:
        """As usual, and the names of its packages; an editable install comes here without `egginfo_dir`."""
        super().write_wheelfile(wheelfile_base, *generator)
        if self.egginfo_dir:
            Path(wheelfile_base, "top_level.txt").write_text("apf_flows\napf_tasks\n", encoding="utf-8")


setup(cmdclass={"build_py": BuildWheel, "bdist_wheel": NameWheel})
