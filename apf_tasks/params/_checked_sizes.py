"""The check of a model from scratch, remembered: transformers takes seconds to import, and its answer stays."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apf_tasks.user_cache import cache_folder


def problem_with_sizes(architecture: str, sizes: Mapping[str, Any]) -> str:
    """What `architectures.problem_with` says. That nothing is wrong is remembered in the user's cache."""
    known = cache_folder() / "architectures" / _key(architecture, sizes)
    if known.is_file():
        return ""
    from apf_tasks.params.architectures import problem_with

    if problem := problem_with(architecture, sizes):
        return problem
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time alone
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    return ""


def _key(architecture: str, sizes: Mapping[str, Any]) -> str:
    """Another one for another question, release of transformers, or way to check."""
    code = Path(__file__).with_name("architectures.py").read_text(encoding="utf-8")
    asked = json.dumps([version("transformers"), code, architecture, sizes], sort_keys=True, default=repr)
    return blake2b(asked.encode(), digest_size=16).hexdigest()
