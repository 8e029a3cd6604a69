"""YAML as params files are written: reading and writing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable
from typing import Any

import yaml

from apf_tasks.params.experiment import Params
from apf_tasks.params.word_vectors import WordVectorParams


class Loader(yaml.SafeLoader):
    """YAML where 3e-5 is a number, `no` is a word, and a key written twice is an error."""

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
