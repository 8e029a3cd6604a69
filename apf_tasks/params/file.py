"""Reading a params file: YAML, dotted overrides, and every problem at once with the nearest known key."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from apf_tasks.errors import ParamsError
from apf_tasks.params._yaml import Loader
from apf_tasks.params.experiment import Params
from apf_tasks.params.family import family_record
from apf_tasks.params.optimizers import NAMES
from apf_tasks.params.search import Range
from apf_tasks.params.word_vectors import WordVectorParams

Trial = dict[str, Any]
"""One point of the search: dotted name -> value."""
SHOWN, LONGEST = 50, 200
"""Problems that are listed, and characters of a value in one of them."""


def load_params(params: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Params:
    """The experiment in a params file, with dotted overrides (`train.learning_rate=3e-5`, or a mapping).

    `params` is a path, or the bare name of a file in params/. Raises ParamsError naming every problem.
    """
    path = find_params(params)
    return params_of(written_in(path), path, overrides)


def written_in(path: Path) -> dict[str, Any]:
    """What a params file says, as plain values. Raises ParamsError when it cannot be read."""
    try:
        written = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(str(path), "YAML in UTF-8", str(error).replace("\n", " "), "Correct the file.") from error
    except OSError as error:
        raise ParamsError(str(path), "a readable file", str(error), "Check the path.") from error
    if not isinstance(written, dict):
        found = "an empty file" if written is None else type(written).__name__
        raise ParamsError(str(path), "sections such as family, data and model", found, "See params/sentiment.yaml.")
    return written


def params_of(written: dict[str, Any], path: Path, overrides: Mapping[str, Any] | Sequence[str]) -> Params:
    """The experiment in the plain values of a file, with overrides. Raises ParamsError naming every problem."""
    given = parse_overrides(overrides)
    for name, value in given.items():
        put(written, name, value)
    search = written.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), dict) and "search.space" not in given:
        # a value that somebody gives is meant, and no longer searched
        written["search"] = search | {"space": {n: v for n, v in search["space"].items() if n not in given}}
    return validate({"name": path.stem, **written}, str(path))


RUNS = "runs:/"
"""MLflow's address of a run, whose recorded params are a params file too."""


def origin(params: str) -> str:
    """How a person would call the params file again: its path, or the address of the run that recorded it."""
    return params if params.startswith(RUNS) else str(find_params(params))


def find_params(params: str | Path) -> Path:
    """The file that a path or a bare name means. Raises ParamsError with the nearest existing name."""
    candidates = [Path(params), Path("params") / f"{params}.yaml", Path("params") / str(params)]
    for path in candidates:
        if path.is_file():
            return path
    known = {path.stem: path for path in sorted(Path("params").rglob("*.yaml"))}
    near = nearest(Path(params).stem, list(known))
    do = f"Did you mean {known[near]}?" if near else "Write the path of a YAML file."
    raise ParamsError("params", "an existing params file", str(params), do)


def parse_overrides(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """`["train.epochs=2"]` or a mapping -> dotted name -> value, values read as YAML."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    parsed = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ParamsError("overrides", "name=value", repr(text), "Write for example train.learning_rate=3e-5.")
        try:
            parsed[name.strip()] = yaml.load(value, Loader)
        except yaml.YAMLError as error:
            raise ParamsError(f"override {name}", "a YAML value", repr(value), "Quote it for YAML.") from error
    return parsed


def validate(written: dict[str, Any], where: str) -> Params:
    """Params from plain values. Raises ParamsError with all problems, each with its path, the value and a hint."""
    try:
        params = Params.model_validate(written)
    except ValidationError as error:
        problems = [problem_line(dict(e)) for e in error.errors()]
        found = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}\n{_listed(problems)}\n"
        raise ParamsError(where, "valid params", found, "docs/PARAMS.md lists every key.") from None
    check_search(params, where)
    return params


def check_search(params: Params, where: str) -> None:
    """Raises ParamsError with every problem that a value of the search space would bring."""
    space = params.search.space
    tried: list[Trial] = [{name: value} for name, values in space.items() for value in bounds(values)]
    if not (problems := _problems(params, tried)) and params.search.strategy == "grid":
        problems = _problems(params, grid(params))  # values that do not go together
    if problems:
        listed = f"\n{_listed(problems)}\n"
        raise ParamsError(f"{where}: search.space", "values that the sections allow", listed, "Correct the search.")

    depends = [name for name in space if not name.startswith("train.")]
    if depends and params.metric in family_record(params.family).per_token:
        expected = f"a metric that does not depend on the tokenizer, as {depends[0]} is searched"
        do = "Write select.metric: bits_per_byte where the family has it, or search train.* alone."
        raise ParamsError(f"{where}: select.metric", expected, params.metric, do)


def _problems(params: Params, tried: Sequence[Trial]) -> list[str]:
    found: dict[str, None] = {}
    for trial in tried:
        try:
            with_trial(params, trial)
        except ValidationError as error:
            found |= dict.fromkeys(problem_line(dict(e)) for e in error.errors())
    return list(found)


def bounds(values: list[Any] | Range) -> list[Any]:
    """The values of one searched name that are enough to see whether all are allowed."""
    return values if isinstance(values, list) else [values.low, values.high]


def grid(params: Params) -> list[Trial]:
    """Every combination of the search space; without a space, the one that is written."""
    space = params.search.space
    lists = [values if isinstance(values, list) else [] for values in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def with_trial(params: Params, trial: Trial) -> Params:
    """The experiment with the values of one trial and nothing to search. Raises pydantic's ValidationError."""
    written = params.model_dump(by_alias=True, exclude={"search"})
    for name, value in trial.items():
        if isinstance(value, dict):  # a section: what it does not name stays
            for inner, part in value.items():
                put(written, f"{name}.{inner}", part)
        else:
            put(written, name, value)
    return Params.model_validate(written)


def put(section: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted name in nested dictionaries; `search.space` keeps its dotted keys whole."""
    if dotted.startswith("search.space."):
        section.setdefault("search", {}).setdefault("space", {})[dotted.removeprefix("search.space.")] = value
        return
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = section.get(parent)
        section[parent] = section = inner if isinstance(inner, dict) else {"name": inner} if inner else {}
    section[last] = value


def _listed(problems: Sequence[str]) -> str:
    """A line for each, of the first ones."""
    more = [f"  and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n".join([*problems[:SHOWN], *more])


def _short(text: str, longest: int = LONGEST) -> str:
    """The beginning of what is long."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def problem_line(error: dict[str, Any]) -> str:
    """One line for one pydantic error."""
    path = [str(part) for part in error["loc"] if not _is_union_branch(str(part)) and part not in NAMES]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        near = nearest(path[-1], known_keys(path[:-1]))
        return f"  {name}: unknown key" + (f". Did you mean {near!r}?" if near else "")
    if error["type"] == "missing":
        return f"  {name}: is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "optimizer":
        message = f"{message}, found {error['input']['name']!r}"
    if error["type"] in ("model_type", "dict_type"):  # pydantic would name a class
        message = "expected a section with keys of its own"
    told = isinstance(error["input"], dict) or ", found " in message
    shown = "" if told else f", found {_short(repr(error['input']))}"
    message, _, advice = message.partition(". ") if message.endswith((".", "?")) else (message, "", "")
    return f"  {name}: {message[:1].lower()}{_short(message[1:], 2 * LONGEST)}{shown}" + (advice and f". {advice}")


def _is_union_branch(part: str) -> bool:
    """Pydantic adds the tried type of a union to a path: `str`, `dict[...]`, `tuple[...]`."""
    return bool(
        re.match(r"^(str|int|float|bool|(dict|tuple|list|literal|constrained|function|nullable)[-\[].*|Range)$", part)
    )


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word most like `word`, or one that contains it."""
    inside = [k for k in known if len(word) > 2 and (word in k or k in word)]
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6) or inside), None)


def known_keys(path: Sequence[str]) -> list[str]:
    """Keys that may be written in the section at `path`."""
    section: type[BaseModel] | None = Params
    for part in path:
        section = (
            section_class(section.model_fields[part].annotation) if section and part in section.model_fields else None
        )
    if section is None:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]


def section_class(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, UnionType):
        return next((s for a in get_args(annotation) if (s := section_class(a))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


SECTION = "vectors"
"""A file that has this section is about word vectors."""


Experiment = Params | WordVectorParams


def load_experiment(params: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Experiment:
    """The experiment in a params file, of whichever kind. Raises ParamsError naming every problem."""
    path = find_params(params)
    written = written_in(path)
    if SECTION not in written:
        return params_of(written, path, overrides)
    for name, value in parse_overrides(overrides).items():
        put(written, name, value)
    return validate_word_vectors({"name": path.stem, **written}, str(path))


def load_word_vectors(params: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> WordVectorParams:
    """The word-vector experiment in a params file. Raises ParamsError naming every problem."""
    experiment = load_experiment(params, overrides)
    if isinstance(experiment, WordVectorParams):
        return experiment
    found = f"the family {experiment.family.name}"
    raise ParamsError(str(params), f"a section `{SECTION}`", found, "Start it with `apf run`.")


def validate_word_vectors(written: dict[str, Any], where: str) -> WordVectorParams:
    """Params from plain values. Raises ParamsError with all problems, each with its path, the value and a hint."""
    try:
        return WordVectorParams.model_validate(written)
    except ValidationError as error:
        problems = [_word_vector_problem(dict(e)) for e in error.errors()]
        found = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}\n{_listed(problems)}\n"
        raise ParamsError(where, "valid params for word vectors", found, "docs/PARAMS.md lists every key.") from None


def _word_vector_problem(error: dict[str, Any]) -> str:
    if error["type"] != "extra_forbidden":
        return problem_line(error)
    *parents, last = (str(part) for part in error["loc"])
    section: type[Any] | None = WordVectorParams
    for parent in parents:
        section = section_class(section.model_fields[parent].annotation) if section else None
    known = [field.alias or name for name, field in section.model_fields.items()] if section else []
    near = nearest(last, known)
    return f"  {'.'.join([*parents, last])}: unknown key" + (f". Did you mean {near!r}?" if near else "")
