"""What a run has to record so that it can be repeated: all its params, and per stage its data, code and environment."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from apf_tasks import store
from apf_tasks.frozen import Frozen
from apf_tasks.params_file import Loader

if TYPE_CHECKING:
    from apf_tasks.stage import Visit
    from apf_tasks.word_vectors.params import Experiment

PARAMS, PROVENANCE = "params.yaml", "provenance.json"
"""Their names among the artifacts of a pipeline's MLflow run."""
LIBRARIES = (
    *("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pyarrow", "mlflow", "prefect"),
)
"""Distributions whose exact version is recorded for every stage, beside those that its key names."""
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Those that decide which kernels run, and so how sums are rounded."""


class StageFacts(Frozen):
    """One stage of a run: what its result depended on, and the result's handle."""

    stage: str
    label: str
    status: str
    """`ran` or `reused`."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Dotted parameter or `content of X` -> value."""
    code: dict[str, str] = Field(default_factory=dict)
    """Module -> digest of its syntax tree."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Where it was computed, by this run or an earlier one: python, cpu, threads, library -> version."""
    handle: dict[str, Any] = Field(default_factory=dict)


class Provenance(Frozen):
    """Everything beside its params that a run depended on."""

    params_file: str
    """The file that was run, as it was called then."""
    folder: str
    """The working folder, which relative paths in the params start from."""
    stages: tuple[StageFacts, ...]


def provenance(params_file: str, visits: Sequence[Visit]) -> Provenance:
    """The facts of all stages that have a result, reused ones included."""
    return Provenance(
        params_file=params_file, folder=str(Path.cwd()), stages=tuple(_facts(v) for v in visits if v.handle is not None)
    )


def _facts(visit: Visit) -> StageFacts:
    assert visit.handle is not None
    known: dict[str, Any] = {}
    try:
        record = store.Record.model_validate_json((visit.handle.path / store.RECORD).read_text())
        known = record.model_dump(include={"inputs", "code", "environment"})
    except (OSError, ValidationError, UnicodeDecodeError):
        pass  # somebody deletes from the store right now; the handle is still worth its line
    handle = visit.handle.model_dump(mode="json", exclude={"path"})
    return StageFacts(stage=visit.stage, label=visit.label, status=visit.status, handle=handle, **known)


def environment(libraries: Iterable[str] = ()) -> dict[str, str]:
    """What is under the code now: python, system, cpu, threads, and the versions of the main and of these libraries."""
    here = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    names = sorted({*LIBRARIES, *libraries})
    return here | {"cpu": cpu_kind(), "threads": threads()} | {name: installed_version(name) for name in names}


@functools.cache
def installed_version(name: str) -> str:
    """The version of a distribution; optional ones may be `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def threads() -> str:
    """How many threads a library may compute with; sums are cut among them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("OMP_NUM_THREADS") or str(usable)


@functools.cache
def cpu_kind() -> str:
    """Model of the CPU and its instruction sets of INSTRUCTION_SETS. Another kind may round differently."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        described = ""
    model = re.search(r"^model name\s*:\s*(.+)$", described, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", described, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    sets = ", ".join(name for name in INSTRUCTION_SETS if name in present)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name} ({sets})" if sets else name


class _Dumper(yaml.SafeDumper):
    """Quotes what either `Loader` or any reader of YAML 1.1 would not take as text."""


_resolvers: dict[str, list[Any]] = defaultdict(list)
for _reader in (Loader, yaml.SafeLoader):
    for _first, _found in _reader.yaml_implicit_resolvers.items():
        _resolvers[_first] += _found
_Dumper.yaml_implicit_resolvers = dict(_resolvers)


def params_yaml(experiment: Experiment) -> str:
    """All params, those left at their defaults too, as a params file that gives the same experiment again."""
    values = experiment.model_dump(mode="json", by_alias=True)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118)
