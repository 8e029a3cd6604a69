"""The base of every value in apf: immutable, JSON-friendly, and strict about unknown keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """A value that never changes: derive another one with `model_copy(update=...)`.

    The sentence under a field is its description; the params reference is generated from them.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        ser_json_inf_nan="constants",
    )


def dotted(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested sections under their dotted names; an empty section is a leaf."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from dotted(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
