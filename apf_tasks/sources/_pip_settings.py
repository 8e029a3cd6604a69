"""Which package index pip would ask, and how: read from pip, so that a mirror needs no second setting."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from apf_tasks.errors import SourceError


@dataclass(frozen=True)
class PipSettings:
    """What pip is told about indexes, from its files and the environment."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    certificates: str | None
    proxy: str | None
    trusted_hosts: tuple[str, ...]


def pip_settings() -> PipSettings:
    """pip's configuration, the environment winning over its files."""
    said = _by_priority(_ask("-m", "pip", "config", "list", "--disable-pip-version-check"), os.environ)
    indexes = [*said.get("index-url", "").split(), *said.get("extra-index-url", "").split()]
    if "index-url" not in said:
        # the one place where pip says which index it takes when nobody named one
        indexes[:0] = _ask("-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)")
    if said.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        indexes = []
    return PipSettings(
        tuple(indexes), tuple(said.get("find-links", "").split()), said.get("cert") or None,
        said.get("proxy") or None, tuple(said.get("trusted-host", "").split()),
    )  # fmt: skip


def _ask(*how: str) -> list[str]:
    """The lines that pip prints, in a process of its own: imported here it would exchange modules of this one."""
    asked = subprocess.run([sys.executable, *how], capture_output=True, text=True, check=False)
    if asked.returncode:
        found = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        raise SourceError("pip config list", "pip's configuration", found, "Install pip into this environment.")
    return asked.stdout.splitlines()


def _by_priority(lines: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Option -> value from the lines of `pip config list`: [global], then [download], then PIP_* variables."""
    sections: dict[str, dict[str, str]] = {"global": {}, "download": {}}
    for line in lines:
        key, _, value = line.partition("=")
        section, _, option = key.partition(".")
        if section in sections and value:
            sections[section][option] = str(ast.literal_eval(value))
    variables = {
        k[4:].lower().replace("_", "-"): v for k, v in environment.items() if k.startswith("PIP_") and v.strip()
    }
    return sections["global"] | sections["download"] | variables
