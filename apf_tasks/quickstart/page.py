"""A draft as a YAML page that explains itself."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from apf_tasks.params._yaml import Loader
from apf_tasks.quickstart.columns import one_line

WIDTH = 118
SHOWN_VALUES = 6


def flow(value: Any) -> str:
    """A value on one line, as the reader of params files reads it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return f"{value:g}" if isinstance(value, float) else str(value)
    plain = value if value.isprintable() and value else json.dumps(value)
    try:
        # inside a flow, as a mapping's value, where most characters mean something
        read = yaml.load(f"{{a: {plain}, b: [{plain}], {plain}: 1}}", Loader)
        good = read == {"a": value, "b": [value], value: 1}
    except yaml.YAMLError:
        good = False
    return plain if good else json.dumps(value, ensure_ascii=not value.isprintable())


def comment(text: str, indent: str = "") -> list[str]:
    """Comment lines, as many as the text needs."""
    text = one_line(text, 10_000)
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def entry(key: str, value: Any, why: str = "", indent: str = "  ") -> list[str]:
    """`key: value # why`, the reason on its own line where there is no room beside."""
    line = f"{indent}{key}: {value if isinstance(value, Literal) else flow(value)}"
    if not why:
        return [line]
    beside = f"{line} # {one_line(why, 10_000)}"
    return [beside] if len(beside) <= WIDTH + 2 else [*comment(why, indent), line]


class Literal(str):
    """A value that is YAML already, such as 3e-5."""

    __slots__ = ()


def section(title: str, key: str, lines: Sequence[str]) -> str:
    """A section with its explanation above."""
    return "\n".join([*comment(title), f"{key}:", *lines])


def counted(counts: Mapping[str, int]) -> str:
    """Values with how often each occurs, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{one_line(value, 40)} × {count:,}" for value, count in ordered[:SHOWN_VALUES])
    return shown + (f" and {len(counts) - SHOWN_VALUES} more" if len(counts) > SHOWN_VALUES else "")
