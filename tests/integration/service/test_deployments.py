"""prefect.yaml and the params files belong together."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import yaml

from tests.support.paths import PROJECT

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]


def test_every_params_file_is_deployed() -> None:
    files = {path.stem for path in (PROJECT / "params").glob("*.yaml")}
    words = {name for name in files if name.startswith("word-vectors")}
    names: dict[str, set[str]] = {}
    for found in DEPLOYMENTS:
        names.setdefault(found["entrypoint"].partition(":")[2], set()).add(found["name"])
    assert names["fine_tune"] == files - words
    assert names["word_vectors"] == words
    assert names["retrain"] == names["drift"] == {name for name in files - words if not name.startswith("pretrain")}


def test_what_a_deployment_gives_is_what_its_flow_takes() -> None:
    for found in DEPLOYMENTS:
        file, _, name = found["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        assert set(found["parameters"]) <= set(inspect.signature(flow.fn).parameters)
        params = found["parameters"].get("params")
        assert params is None or (PROJECT / "params" / f"{params}.yaml").is_file()
        for trigger in found.get("triggers", []):
            assert trigger["match"] == {"prefect.resource.id": f"apf.experiment.{params}"}
