"""The section `family`, and how a family is found by its name: one of ours, or a module of one's own."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from apf_tasks.errors import ParamsError
from apf_tasks.params.base import Frozen

PACKAGE = "apf_tasks.families"
FOLDER = Path(__file__).parents[1] / "families"
NAMES = {"classification": "sentiment"}
"""Folder -> the name of its family, where they differ. The folder's name is accepted too."""
KNOWN_AS = {
    **dict.fromkeys(("classification", "text-classification", "sentiment-analysis", "nli"), "sentiment"),
    **dict.fromkeys(("tagging", "token-classification", "sequence-tagging"), "ner"),
    **dict.fromkeys(("qa", "question-answering", "extractive-qa", "mrc"), "question_answering"),
    **dict.fromkeys(("chat", "sft", "clm", "causal-lm", "text-generation", "instructions", "pt"), "causal_lm"),
    **dict.fromkeys(("mlm", "masked-lm", "fill-mask"), "masked_lm"),
    **dict.fromkeys(("mt", "nmt"), "translation"),
    **dict.fromkeys(("summary", "summarisation"), "summarization"),
}
"""What other tools call the kind of problem -> the name here."""
OUTPUTS = ("seq2seq", "text2text", "text2text-generation", "text-to-text")
"""What other tools call all that writes a text for a text."""
OWN = "docs/families/YOUR_OWN.md says what such a module has."


class FamilyParams(Frozen):
    """The kind of language problem. A family adds its own options by deriving from this class."""

    name: str
    """Name of the family, such as `sentiment`, or of a module of your own, such as `my_package.intents`."""


def family_names() -> list[str]:
    """The families of this package, found by looking into its folder."""
    found = (m.name for m in pkgutil.iter_modules([str(FOLDER)]) if not m.name.startswith("_"))
    return sorted(NAMES.get(name, name) for name in found)


def family_params(name: str) -> type[FamilyParams]:
    """The options of the family called `name`. Raises ParamsError with the nearest known name."""
    params: type[FamilyParams] = family_module(name).PARAMS
    return params


def family_module(name: str) -> ModuleType:
    """The module that defines the family called `name`. Raises ParamsError with the nearest known name."""
    if is_own(name):
        return _own_module(name)
    known = family_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of them, or name a module of your own."
        if name.replace("_", "-") in OUTPUTS:
            hint = "Write `translation` or `summarization`."
        raise ParamsError("family", "one of " + ", ".join(known), repr(name), hint)
    return importlib.import_module(module_name(name))


def family_record(params: FamilyParams) -> Any:
    """The `apf_tasks.family.Family` for these options, found by its name: no module of params knows a family.

    Raises ParamsError where a module of one's own makes no such record.
    """
    module = family_module(params.name)
    full = params if isinstance(params, module.PARAMS) else module.PARAMS.model_validate(params.model_dump())
    if not is_own(params.name):
        return module.family(full)
    where, expected = f"family {params.name}: family(params)", "an apf_tasks.family.Family"
    try:
        record = module.family(full)
    except TypeError as error:  # of the record's fields, most often
        raise ParamsError(where, expected, str(error), OWN) from error
    if type(record).__name__ != "Family":
        raise ParamsError(where, expected, type(record).__name__, OWN)
    return record


def canonical(name: str) -> str:
    """The name that a family is recorded under: `classification` and `text-classification` are `sentiment`."""
    return name if name in family_names() else KNOWN_AS.get(name.strip().lower().replace("_", "-"), name)


def module_name(name: str) -> str:
    """The dotted name of the module that defines a family: a folder's `family.py`, or a file of that name."""
    if is_own(name):
        return name
    place = next((folder for folder, family in NAMES.items() if family == name), name)
    return f"{PACKAGE}.{place}.family" if (FOLDER / place).is_dir() else f"{PACKAGE}.{place}"


def is_own(name: str) -> bool:
    """Whether a family is a module of one's own: its name is a dotted one."""
    return "." in name


def own_package(name: str) -> str | None:
    """The top-level package of a family of one's own; None for one of ours."""
    return name.partition(".")[0] if is_own(name) else None


def own_distributions(name: str | None) -> dict[str, str]:
    """Distribution -> version of what a family of one's own is installed from; empty for a folder, and for ours."""
    package = None if name is None else own_package(name)
    found = [] if package is None else packages_distributions().get(package, [])
    return {distribution: version(distribution) for distribution in sorted(set(found))}


def _own_module(name: str) -> ModuleType:
    """The module, from the working folder or installed. Raises ParamsError."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # last: it hides nothing that is installed
    try:
        module = importlib.import_module(name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and name.startswith(str(error.name))
        expected = f"a module in {folder} or an installed one" if missing else "a module that can be imported"
        found = "none of that name" if missing else f"{type(error).__name__}: {error}"
        do = f"`python -c 'import {name}'` shows more. {OWN}"
        raise ParamsError(f"family {name}", expected, found, do) from error
    params = getattr(module, "PARAMS", None)
    if not (isinstance(params, type) and issubclass(params, FamilyParams)):
        expected = "PARAMS, a class derived from apf_tasks.params.family.FamilyParams"
        raise ParamsError(f"family {name}", expected, repr(params), OWN)
    if not callable(getattr(module, "family", None)):
        found = repr(getattr(module, "family", None))
        raise ParamsError(f"family {name}", "family(params), a function that makes the record", found, OWN)
    return module
