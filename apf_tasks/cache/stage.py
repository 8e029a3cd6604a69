"""stage(fn) -> a cached call of a plain function.

A stage function takes the folder to write into, then handles and params (or a NamedTuple of them), and returns one
handle. A call computes a key from all that the function depends on; it returns the stored handle, or runs the function:
in this process, or by the runner that `use_stage_runner` names.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, get_type_hints

from apf_tasks.artifacts import Artifact
from apf_tasks.cache import fingerprints, history, store
from apf_tasks.cache.code_digest import code_digests, root_of
from apf_tasks.cache.environment import environment, installed_version
from apf_tasks.cache.journal import Pending, StageRun, _journal, labelled_as
from apf_tasks.context import scoped
from apf_tasks.params.base import Frozen, dotted
from apf_tasks.params.family import FamilyParams, own_distributions

P = ParamSpec("P")
R = TypeVar("R", bound=Artifact)

logger = logging.getLogger("apf")


def no_external_inputs(*args: Any, **kwargs: Any) -> dict[str, str]:
    """The identity of a stage that depends on nothing outside its arguments."""
    return {}


@dataclass(frozen=True)
class Stage(Generic[P, R]):
    """A stage function and what its result depends on."""

    function: Callable[Concatenate[Path, P], R]
    code: tuple[str, ...]
    """Where code is followed from, by names below apf_tasks: the function, and what it reaches without an import."""
    libraries: tuple[str, ...]
    """Distributions whose major.minor version is part of the key."""
    identity: Callable[..., dict[str, str]]
    """Identity of what the arguments only name: files, packages, Hub revisions."""
    exists_outside: Callable[[Any], bool]
    """Whether what a stored handle points to outside the store is still there."""
    resumable: bool
    is_preparation: bool
    """Whether it only makes rows ready for training, in seconds."""
    label: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def labelled(self, label: str) -> Stage[P, R]:
        """The same stage with a name for this call."""
        return replace(self, label=label)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The stored handle, or the function's. In a dry journal: the stored handle or Pending."""
        pipeline = _journal.get()
        unknown = next((a.stage for a in _leaves([args, kwargs]) if isinstance(a, Pending)), None)
        if unknown is not None:
            return self._planned(f"unless {unknown} gives what it gave before", self._named(*args, **kwargs))
        record = self.record(*args, **kwargs)
        dry = pipeline is not None and pipeline.dry
        handle = self.stored(record.key, look_outside=not dry)
        if dry:
            if handle is not None:
                return self.note("reused", "", 0.0, handle)
            if pipeline is not None and pipeline.prepare and self.is_preparation:
                return self._run_now(record, args, kwargs)
            return self._planned(history.explain_miss(record), self._named(*args, **kwargs))
        reason = history.explain_miss(record) if handle is None else ""
        if handle is None:
            logger.info("%-10s runs: %s", self.title, reason)
        started = time.perf_counter()
        result, ran = _runner.get()(self, record, args, kwargs)
        history.note(record)
        status = "ran" if ran else "reused"  # by another process, perhaps, while this one waited for the lock
        return self.note(status, reason if ran else "", time.perf_counter() - started, result)

    def record(self, *args: P.args, **kwargs: P.kwargs) -> store.Record:
        """Everything the result depends on, and its key."""
        arguments = self._named(*args, **kwargs)
        inputs = _inputs(arguments) | self.identity(*_spread(args), **kwargs)
        family = next((a.name for a in arguments.values() if isinstance(a, FamilyParams)), None)
        code = code_digests(self.code, family)
        libraries = {name: ".".join(installed_version(name).split(".")[:2]) for name in self.libraries}
        libraries |= own_distributions(family)
        key = fingerprints.digest([self.name, inputs, code, libraries])
        return store.Record(stage=self.name, key=key, inputs=inputs, code=code, libraries=libraries, seconds=0)

    @contextmanager
    def open_call(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[tuple[str, Path]]:
        """The key of a call and the folder that it works in, under its lock: for a stage that does a part of it."""
        key = self.record(*args, **kwargs).key
        with store.lock(key):
            yield key, store.open_partial(self.name, key, self.resumable)

    def _named(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """The arguments of a call by name; of a bundle its fields."""
        given = inspect.signature(functools.partial(self.function, Path())).bind(*args, **kwargs).arguments
        named: dict[str, Any] = {}
        for name, value in given.items():
            named |= value._asdict() if _is_bundle(value) else {name: value}
        return named

    def stored(self, key: str, look_outside: bool = True) -> R | None:
        """The verified handle of an earlier call. A plan does not ask whether the registry still has its model."""
        handle = store.load(self.name, key, self.returns)
        return None if handle is None or (look_outside and not self.exists_outside(handle)) else handle

    @property
    def returns(self) -> type[R]:
        """The class of the handle."""
        return cast(type[R], get_type_hints(self.function)["return"])

    def run(self, record: store.Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        """Run the plain function into a partial folder and make it the stored result."""
        started = time.perf_counter()
        with labelled_as(self.label):
            with self._store_errors():
                out = store.open_partial(self.name, record.key, self.resumable)
            with self._store_errors(only=store.FULL):
                handle = self.function(out, *args, **kwargs)
            with self._store_errors():
                made: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 3)}
                made |= {"environment": environment(self.libraries), "experiment": history.current_experiment()}
                return cast(R, store.commit(out, handle, record.model_copy(update=made)))

    def _run_now(self, record: store.Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        """Run in this process, though the journal is dry."""
        reason, started = history.explain_miss(record), time.perf_counter()
        handle, _ = run_locally(self, record, args, kwargs)
        history.note(record)
        return self.note("ran", reason, time.perf_counter() - started, handle)

    @contextmanager
    def _store_errors(self, only: Sequence[int] = ()) -> Iterator[None]:
        """A system error on the store (with `only`, one of these numbers) becomes a StoreError."""
        try:
            yield
        except OSError as error:
            if only and error.errno not in only:
                raise
            raise store.store_error(error, self.name) from error

    @property
    def title(self) -> str:
        """Name and label of this call."""
        return f"{self.name} {self.label}".strip()

    def _planned(self, reason: str, arguments: Mapping[str, Any]) -> R:
        self.note("runs", reason, 0.0, None, arguments)
        return cast(R, Pending(self.name))

    def note(
        self, status: str, reason: str, seconds: float, handle: R | None, arguments: Mapping[str, Any] | None = None
    ) -> R:
        """Write a call down in the journal, and say what came of it. Gives the handle."""
        pipeline = _journal.get()
        if pipeline is not None:
            pipeline.stage_runs.append(
                StageRun(self.name, self.label, status, reason, seconds, handle, arguments or {})
            )
        if handle is not None and not (pipeline and pipeline.dry):
            took = "reused" if status == "reused" else f"{seconds:.1f} s"
            logger.info("%-10s %s: %s", self.title, took, handle.describe())
        return cast(R, handle)


Runner = Callable[[Stage[Any, Any], store.Record, tuple[Any, ...], dict[str, Any]], tuple[Any, bool]]
"""(stage, record, args, kwargs) -> the handle, and whether the function ran (or another process was first)."""


def run_locally(
    stage: Stage[Any, R], record: store.Record, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[R, bool]:
    """Run a stage call in this process, under the lock of its key."""
    with store.lock(record.key):
        if (handle := stage.stored(record.key)) is not None:
            return handle, False
        return stage.run(record, args, kwargs), True


_runner: ContextVar[Runner] = ContextVar("apf_runner", default=run_locally)


def use_stage_runner(runner: Runner) -> AbstractContextManager[None]:
    """Within the block stage calls run by `runner`, for example as tasks of Prefect."""
    return scoped(_runner, runner)


def stage(
    code: Sequence[str] = (),
    libraries: Sequence[str] = (),
    identity: Callable[..., dict[str, str]] = no_external_inputs,
    exists_outside: Callable[[Any], bool] = lambda handle: True,
    resumable: bool = False,
    is_preparation: bool = False,
) -> Callable[[Callable[Concatenate[Path, P], R]], Stage[P, R]]:
    """Decorate a stage function. See Stage for the meaning of each argument; `code` is what an import does not show."""
    rest = (tuple(libraries), identity, exists_outside, resumable, is_preparation)
    return lambda function: Stage(function, (*root_of(function), *code), *rest)


def _inputs(arguments: dict[str, Any]) -> dict[str, Any]:
    """Dotted name -> value of params sections; `content of X` -> fingerprint of handles."""
    inputs: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Artifact):
            inputs[f"content of {name}"] = value.fingerprint
        elif isinstance(value, tuple) and value and all(isinstance(v, Artifact) for v in value):
            inputs[f"content of {name}"] = [v.fingerprint for v in value]
        elif isinstance(value, Frozen):
            kind = type(value)
            section = "family" if isinstance(value, FamilyParams) else getattr(kind, "section", None)
            section = section or kind.__name__.removesuffix("Params").lower()
            inputs |= {
                f"{section}.{k}": v for k, v in dotted(value.model_dump(mode="json", exclude=_outside_key(value)))
            }
        else:
            inputs[name] = list(value) if isinstance(value, tuple) else value
    return inputs


def _outside_key(section: Frozen) -> set[str]:
    """Fields that say how a result is made but not what it is."""
    fields = type(section).model_fields.items()
    return {
        n for n, f in fields if isinstance(f.json_schema_extra, dict) and f.json_schema_extra.get("in_key") is False
    }


def _is_bundle(value: Any) -> bool:
    """Whether an argument is a NamedTuple of handles and params, which counts as so many arguments."""
    return isinstance(value, tuple) and hasattr(value, "_asdict")


def _spread(args: Sequence[Any]) -> Iterator[Any]:
    for value in args:
        yield from value if _is_bundle(value) else (value,)


def _leaves(value: Any) -> Iterator[Any]:
    value = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
