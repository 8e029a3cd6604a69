"""docs/PARAMS.md, generated from the params classes: `python -m apf_tasks.params.reference > docs/PARAMS.md`."""

from __future__ import annotations

import inspect
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from apf_tasks.params.experiment import Params
from apf_tasks.params.family import family_names, family_params
from apf_tasks.params.word_vectors import WordVectorParams

HEAD = """# Reference of the params file

One YAML file in `params/` is one experiment. Every key below can be overridden on the command line by its dotted name
(`apf run params/sentiment.yaml train.epochs=2`), and every key of `train` can be searched over
(`search.space`). `apf check FILE` names all problems at once. This page is generated from the classes
(`python -m apf_tasks.params.reference`); a test keeps it true.

A file with a section `vectors` is for [word vectors](#word-vectors) and has its own sections.
"""

WORD_VECTORS = """# Word vectors

A file with a section `vectors` trains word vectors. `data` and `register` are as for any experiment; the only
columns are `text` and `id`.
"""


def reference() -> str:
    """The whole page."""
    sections = [HEAD, _table("", Params)]
    for name, field in Params.model_fields.items():
        section = _section(field.annotation)
        if section is not None and name != "family":
            sections.append(_part(field.alias or name, section))
    for name in family_names():
        sections.append(_part(f"family (name: {name})", family_params(name)))
    sections += [WORD_VECTORS, _table("", WordVectorParams)]
    for name, field in WordVectorParams.model_fields.items():
        section = _section(field.annotation)
        if section is not None and name not in Params.model_fields:
            sections.append(_part(name, section))
    return "\n".join(sections)


def _part(title: str, section: type[BaseModel]) -> str:
    text = inspect.getdoc(section) or ""
    parts = [f"## {title}\n\n{text}\n", _table(title, section)]
    for name, field in section.model_fields.items():
        choices = _choices(field.annotation)
        for inner in choices:
            called = f"{title}.{name}" + (f" (name: {_tag(inner)})" if len(choices) > 1 else "")
            parts.append(f"### {called}\n\n{inspect.getdoc(inner)}\n\n{_table(called, inner)}")
    return "\n".join(parts)


def _table(title: str, section: type[BaseModel]) -> str:
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        text = " ".join((field.description or "").split())
        rows.append(f"| `{field.alias or name}` | {_kind(field)} | {_default(field)} | {text} |")
    return "\n".join(rows) + "\n"


def _kind(field: FieldInfo) -> str:
    limits = {}
    for bound in field.metadata:
        for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
            if getattr(bound, name, None) is not None:
                limits[sign] = getattr(bound, name)
    kind = _words(field.annotation)
    return " ".join([kind, *(f"{sign} {value}" for sign, value in limits.items())]).replace("|", "\\|")


def _words(annotation: Any) -> str:
    """A type in words."""
    if get_origin(annotation) is Annotated:
        return _words(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys("empty" if a is type(None) else _words(a) for a in get_args(annotation)))
    if get_origin(annotation) in (dict, list, tuple):
        kinds = {dict: "mapping", list: "list", tuple: "list" if Ellipsis in get_args(annotation) else "range"}
        inner = ", ".join(_words(a) for a in get_args(annotation) if a is not Ellipsis)
        return f"{kinds[get_origin(annotation)]} of {inner}"
    if _section(annotation) is not None:
        return "section"
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "Any": "anything"}
    return names.get(getattr(annotation, "__name__", str(annotation)), str(annotation))


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return ""
    if field.default is PydanticUndefined:
        return "required"
    return (
        "empty"
        if field.default is None
        else f"`{re.sub('^(True|False)$', lambda m: m[0].lower(), str(field.default))}`"
    )


def _choices(annotation: Any) -> list[type[BaseModel]]:
    """The section that stands there, or the sections one of which does."""
    if (one := _section(annotation)) is not None:
        return [one]
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
    return [section for part in parts if (section := _section(_bare(part))) is not None]


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tag(section: type[BaseModel]) -> str:
    return str(get_args(section.model_fields["name"].annotation)[0])


def _section(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, types.UnionType) and len(get_args(annotation)) == 2:  # or empty
        annotation = next((a for a in get_args(annotation) if a is not type(None)), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


if __name__ == "__main__":
    print(reference(), end="")
