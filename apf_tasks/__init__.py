"""Full-parameter fine-tuning of language models. Public names are imported on first use; see docs/PYTHON.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apf_tasks import artifacts, errors
    from apf_tasks.api import compare, export, load_model, load_params, plan, promote, run
    from apf_tasks.cache.stage import stage
    from apf_tasks.family import Family

__all__ = [
    "Family",
    "artifacts",
    "compare",
    "errors",
    "export",
    "load_model",
    "load_params",
    "plan",
    "promote",
    "run",
    "stage",
]

_ELSEWHERE = {"Family": "apf_tasks.family", "stage": "apf_tasks.cache.stage"}
"""Public names that are not defined in api.py, and their modules."""


def __getattr__(name: str) -> Any:
    """The public name, on first use (PEP 562); later uses find it in the module itself."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public: {', '.join(__all__)}")
    if name in ("artifacts", "errors"):
        return import_module(f"{__name__}.{name}")
    found = globals()[name] = getattr(import_module(_ELSEWHERE.get(name, "apf_tasks.api")), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
