"""The base of every value in apf: immutable, JSON-friendly, and strict about unknown keys."""

from pydantic import BaseModel, ConfigDict


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
