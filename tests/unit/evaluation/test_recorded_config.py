"""What is recorded with a version, read by a later apf: missing, unknown and renamed keys."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from apf_tasks.errors import ParamsError, RegistryError
from apf_tasks.evaluation.registered import recorded_config
from apf_tasks.evaluation.registered.recorded_config import ServedConfig, read_config
from apf_tasks.params.family import family_params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams

WHERE = "models:/reviews/1"
SENTIMENT = family_params("sentiment").model_validate({"name": "sentiment", "pairs": True})
FIRST = {
    "family": SENTIMENT.model_dump(mode="json"),
    "label_names": ["bad", "good"],
    "settings": {"threshold": 0.25},
    "model": {"max_tokens": 48, "allow_pickle": False, "trust_remote_code": False},
    "precision": "fp32",
}
"""As it was recorded before it had a version."""


def test_what_is_recorded_comes_back() -> None:
    model, runtime = ModelParams(base="x", max_tokens=48), RuntimeParams(precision="fp32")
    config = ServedConfig.of(model, SENTIMENT, runtime, ("bad", "good"), {"threshold": 0.25})
    recorded = config.model_dump(mode="json")
    assert recorded == FIRST | {"config_version": 1}
    assert read_config(WHERE, recorded) == read_config(WHERE, FIRST) == config


def test_missing_keys_have_defaults() -> None:
    found = read_config(WHERE, {"family": {"name": "sentiment"}})
    assert found == ServedConfig(family=family_params("sentiment")(name="sentiment"))


def test_unknown_keys_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    family = FIRST["family"] | {"older": 1}  # type: ignore[operator]
    strange = FIRST | {"gone": {"a": 1}, "family": family, "model": {"max_tokens": 48, "slow": True}}
    with caplog.at_level(logging.WARNING, logger="apf"):
        found = read_config(WHERE, strange)
    assert found.family == SENTIMENT
    assert found.model == {"max_tokens": 48}
    assert caplog.messages == [
        f"{WHERE}: its configuration has what apf does not know: family.older, gone.a, model.slow"
    ]


def test_a_renamed_field_is_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit_was_called_max_tokens(config: dict[str, Any]) -> dict[str, Any]:
        model = dict(config["model"])
        return config | {"model": model | {"max_tokens": model.pop("limit")}}

    monkeypatch.setattr(recorded_config, "MIGRATIONS", (limit_was_called_max_tokens,))
    monkeypatch.setattr(recorded_config, "CONFIG_VERSION", 2)
    assert read_config(WHERE, FIRST | {"model": {"limit": 96}}).model["max_tokens"] == 96
    kept = read_config(WHERE, FIRST | {"config_version": 2, "model": {"max_tokens": 32}})
    assert kept.model == {"max_tokens": 32}


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(RegistryError, match="version 1 or older, found 9"):
        read_config(WHERE, FIRST | {"config_version": 9})
    with pytest.raises(RegistryError, match="a fine-tuned model of apf"):
        read_config(WHERE, None)
    with pytest.raises(RegistryError, match="a configuration that this apf can read"):
        read_config(WHERE, FIRST | {"precision": "fp4"})
    with pytest.raises(ParamsError, match="sentiment"):
        read_config(WHERE, FIRST | {"family": {"name": "sentimental"}})
