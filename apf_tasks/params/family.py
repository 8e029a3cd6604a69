"""The section `family`, and how a family's options are found by its name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from apf_tasks.errors import ParamsError
from apf_tasks.params.base import Frozen

PACKAGE = "apf_tasks.families"
FOLDER = Path(__file__).parents[1] / "families"
NAMES = {"classification": "sentiment"}
"""Folder -> the name of its family, where they differ."""


class FamilyParams(Frozen):
    """The kind of language problem. A family adds its own options by deriving from this class."""

    name: str
    """Name of the family, such as `sentiment`."""


def family_names() -> list[str]:
    """All families, found by looking into this folder."""
    found = (m.name for m in pkgutil.iter_modules([str(FOLDER)]) if not m.name.startswith("_"))
    return sorted(NAMES.get(name, name) for name in found)


def family_params(name: str) -> type[FamilyParams]:
    """The options of the family called `name`. Raises ParamsError with the nearest known name."""
    params: type[FamilyParams] = family_module(name).PARAMS
    return params


def family_module(name: str) -> Any:
    """The module that defines the family called `name`. Raises ParamsError with the nearest known name."""
    known = family_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise ParamsError("family", "one of " + ", ".join(known), repr(name), hint)
    return importlib.import_module(module_name(name))


def family_record(params: FamilyParams) -> Any:
    """The `apf_tasks.family.Family` for these options, found by its name: no module of params knows a family."""
    module = family_module(params.name)
    full = params if isinstance(params, module.PARAMS) else module.PARAMS.model_validate(params.model_dump())
    return module.family(full)


def module_name(name: str) -> str:
    """The dotted name of the module that defines a family: a folder's `family.py`, or a file of that name."""
    place = next((folder for folder, family in NAMES.items() if family == name), name)
    return f"{PACKAGE}.{place}.family" if (FOLDER / place).is_dir() else f"{PACKAGE}.{place}"
