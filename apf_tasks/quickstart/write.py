"""Writes a drafted params file, after reading it as `apf check` will."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from apf_tasks.errors import DataError, ParamsError
from apf_tasks.params.file import load_params
from apf_tasks.quickstart.draft import ParamsDraft
from apf_tasks.quickstart.sections import page
from apf_tasks.sources.data import HUB

UNUSABLE = 0.1
"""Share of the rows that cannot be used, above which no params file is written."""


def default_path(family: str, source: str) -> Path:
    """Where the params file goes when nobody says: `params/FAMILY-NAME.yaml`, here when there is no params/."""
    stem = source.rpartition("/")[2] if source.startswith(HUB) else Path(source.split("{")[0]).expanduser().stem
    if not source.startswith(HUB) and Path(source).expanduser().is_dir():
        stem = Path(source).expanduser().resolve().name
    name = re.sub(r"\W+", "-", f"{family}-{stem}").strip("-_")
    return (Path("params") if Path("params").is_dir() else Path()) / f"{name}.yaml"


def refuse_existing(path: Path, force: bool) -> None:
    """Raises ParamsError when there is a file already and it may not be replaced."""
    if path.exists() and not force:
        raise ParamsError("-o", "a name that is free", f"{path}, which exists", "Choose another one, or add --force.")


def _refuse_unusable(found: ParamsDraft) -> None:
    """Raises DataError where a draft would be of no use: more than UNUSABLE of the rows cannot be used."""
    if found.bad_share > UNUSABLE:
        columns = ", ".join(f"{guess.column} ← {guess.source.title}" for guess in found.found.guesses)
        do = f"Nothing is written. Name a column that is taken wrongly ({columns}) by --column, or mend the rows."
        expected = f"rows of which at least {1 - UNUSABLE:.0%} can be used"
        raise DataError(found.source, expected, f"{found.bad_share:.0%} that cannot: {found.problems}", do)


def write(found: ParamsDraft, path: Path, force: bool = False) -> str:
    """Write the params file, after reading it as `apf check` will. Returns its text. Raises ParamsError, and DataError
    where too many rows cannot be used."""
    refuse_existing(path, force)
    _refuse_unusable(found)
    text = page(found)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"{path.stem}.yaml"
        trial.write_text(text, encoding="utf-8")
        load_params(trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return text
