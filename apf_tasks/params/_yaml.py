"""YAML as params files are written: reading and writing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable
from typing import Any

import yaml

from apf_tasks.params.experiment import Params
from apf_tasks.params.word_vectors import WordVectorParams

MOST_VALUES = 1_000_000
"""In one file, those counted again that an alias repeats."""


class Loader(yaml.SafeLoader):
    """YAML where 3e-5 is a number, `no` is a word, and a key written twice is an error."""

    def get_single_node(self) -> yaml.Node | None:
        """The whole document. Raises YAMLError where aliases repeat without end, or something is nested too deep."""
        try:
            node = super().get_single_node()
            if node is not None:
                _count_values(node, {})
        except RecursionError as error:
            raise yaml.YAMLError("values nested too deep") from error
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are single values, each written once. Raises YAMLError with line and column."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _wrong(key_node, "a mapping or list in place of a key: quote braces that are text")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _wrong(key_node, f"duplicate key {key!r}")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Any value. Raises YAMLError with line and column, also for 2026-02-30, which looks like a date."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise _wrong(node, f"{error}: quote it if it is a word") from error


def _count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values there are in a node. Raises YAMLError for more than MOST_VALUES, and for a node inside itself."""
    if id(node) in counted:
        if not counted[id(node)]:
            raise _wrong(node, "a value that contains itself")
        return counted[id(node)]
    counted[id(node)] = 0  # under way
    inner = node.value if isinstance(node, yaml.CollectionNode) else []
    values = [value for one in inner for value in (one if isinstance(one, tuple) else (one,))]
    counted[id(node)] = 1 + sum(_count_values(value, counted) for value in values)
    if counted[id(node)] > MOST_VALUES:
        raise _wrong(node, f"more than {MOST_VALUES:,} values, as aliases repeat them")
    return counted[id(node)]


def _wrong(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf)$|^\.nan$"),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Quotes what either `Loader` or any reader of YAML 1.1 would not take as text."""


_resolvers: dict[str, list[Any]] = defaultdict(list)
for _reader in (Loader, yaml.SafeLoader):
    for _first, _found in _reader.yaml_implicit_resolvers.items():
        _resolvers[_first] += _found
_Dumper.yaml_implicit_resolvers = dict(_resolvers)


def params_yaml(experiment: Params | WordVectorParams) -> str:
    """All params, those left at their defaults too, as a params file that gives the same experiment again."""
    values = experiment.model_dump(mode="json", by_alias=True)
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118)
