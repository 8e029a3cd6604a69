"""The section `family`, and how a family's options are found by its name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

from apf_tasks.errors import ParamsError
from apf_tasks.params.base import Frozen


class FamilyParams(Frozen):
    """The kind of language problem. A family adds its own options by deriving from this class."""

    name: str
    """Which family: `sentiment`."""


def family_names() -> list[str]:
    """All families, found by looking into this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def family_params(name: str) -> type[FamilyParams]:
    """The options of the family called `name`. Raises ParamsError with the nearest known name."""
    params: type[FamilyParams] = _module(name).PARAMS
    return params


def _module(name: str) -> Any:
    known = family_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise ParamsError("family", "one of " + ", ".join(known), repr(name), hint)
    return importlib.import_module(f"{__name__}.{name}")
