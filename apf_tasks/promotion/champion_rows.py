"""The champion, and the rows that it was made from."""

from __future__ import annotations

from apf_tasks.artifacts import Split
from apf_tasks.cache import store
from apf_tasks.errors import RegistryError
from apf_tasks.tracking.champion import champion_of
from apf_tasks.tracking.past_runs import past_run


def champion_uri(name: str) -> str:
    """`models:/NAME/VERSION`. Raises RegistryError."""
    version = champion_of(name)
    if version is None:
        raise RegistryError(f"registry {name}", "a champion", "none", "Run the experiment first.")
    return f"models:/{name}/{version}"


def champion_split(name: str) -> Split:
    """The split of the champion's run, as the store has it. Raises RegistryError."""
    run = past_run(uri := champion_uri(name))
    facts = next((f for f in run.provenance.stages if f.stage == "split_rows"), None)
    fingerprint = "" if facts is None else str(facts.handle.get("fingerprint", ""))
    split = store.with_fingerprint("split_rows", fingerprint, Split)
    if split is None:
        found = "not in this store, mlruns/stages/split_rows"
        do = "Compare where the champion was trained, or `apf rerun` its run here first."
        raise RegistryError(f"rows of {uri}", "the split that it was trained on", found, do)
    return split
