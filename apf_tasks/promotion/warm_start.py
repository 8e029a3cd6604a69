"""Starting from a champion: what an alias of the registry means is settled when a run begins, and recorded with it.

So a run can be repeated after the champion has changed; a champion that has changed is no reason to train again; and
before there is one, a search goes without it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from apf_tasks.errors import ParamsError, RegistryError
from apf_tasks.params.experiment import Params
from apf_tasks.tracking import tracker
from apf_tasks.tracking.registry import REGISTRY

logger = logging.getLogger("apf")

TAG = "apf.bases"
ResolvedAliases = Mapping[str, str | None]
"""`models:/NAME@ALIAS` -> `models:/NAME/VERSION`, or None where there is no such version."""


def resolve_aliases(params: Params) -> ResolvedAliases:
    """Of every alias among the bases of an experiment. Asks nobody when there is none."""
    return {alias: _version(alias) for alias in dict.fromkeys(_aliases(params))}


def last_resolved_aliases(params: Params) -> ResolvedAliases | None:
    """The same as the last finished run of the experiment recorded it."""
    if not any(_aliases(params)):
        return {}
    client = tracker.client()
    if (experiment := client.get_experiment_by_name(params.name)) is None:
        return None
    wanted = "attributes.status = 'FINISHED' and tags.`apf.kind` = 'pipeline'"
    found = client.search_runs(
        [experiment.experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"]
    )
    said = found[0].data.tags.get(TAG) if found else None
    return None if said is None else dict(json.loads(said))


def pin_aliases(params: Params, resolved: ResolvedAliases) -> Params:
    """The experiment with versions in place of aliases. Raises ParamsError when a search has no base left."""
    if not resolved:
        return params
    written = params.model_dump(by_alias=True)
    written["model"]["base"] = resolved.get(params.model.base) or params.model.base
    space = written["search"]["space"]
    for name in ("model", "model.base"):
        if isinstance(space.get(name), list):
            space[name] = [
                _replaced(value, resolved) for value in space[name] if resolved.get(_base(value), "") is not None
            ]
            if not space[name]:
                absent = ", ".join(alias for alias, version in resolved.items() if version is None)
                do = "Add the base that the first version is to be trained from."
                raise ParamsError(f"search.space.{name}", "a model that exists", f"only {absent}", do)
    return Params.model_validate(written)


def as_tag(resolved: ResolvedAliases) -> dict[str, str]:
    """What `last_resolved_aliases` reads."""
    return {TAG: json.dumps(resolved)} if resolved else {}


def _aliases(params: Params) -> Iterator[str]:
    listed = [params.search.space.get(name) for name in ("model", "model.base")]
    values = [value for values in listed if isinstance(values, list) for value in values]
    for base in [params.model.base, *map(_base, values)]:
        if isinstance(base, str) and base.startswith(REGISTRY) and "@" in base:
            yield base


def _base(value: Any) -> Any:
    return value.get("base") if isinstance(value, dict) else value


def _replaced(value: Any, resolved: ResolvedAliases) -> Any:
    version = resolved.get(_base(value))
    if version is None:
        return value
    return value | {"base": version} if isinstance(value, dict) else version


def _version(alias: str) -> str | None:
    from apf_tasks.tracking.registry import find_version

    try:
        found = find_version(alias)
    except RegistryError:
        logger.info("search     %s does not exist yet: it is left out", alias)
        return None
    return f"models:/{found.name}/{found.version}"
