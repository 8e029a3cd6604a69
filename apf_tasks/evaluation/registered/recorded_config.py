"""What is recorded with a fine-tuned model and read when it is loaded, by the code of its day and of any later one.

A registered version lives longer than the names of options. What an older apf recorded is brought up to date here, one
step of `MIGRATIONS` after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError

from apf_tasks.errors import RegistryError
from apf_tasks.params.base import Frozen, dotted
from apf_tasks.params.family import FamilyParams, family_params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams

logger = logging.getLogger("apf")

Recorded = dict[str, Any]
MODEL_FIELDS = {"max_tokens", "allow_pickle", "trust_remote_code"}
MIGRATIONS: tuple[Callable[[Recorded], Recorded], ...] = ()
"""At place n - 1 what makes a configuration of version n one of version n + 1. Add one when a field gets another name
or another meaning; a new field needs none if its default is what was done before."""
CONFIG_VERSION = 1 + len(MIGRATIONS)
"""Versions that were registered before it was recorded have version 1."""


class ServedConfig(Frozen):
    """How a fine-tuned model answers, beside its folder."""

    config_version: int = CONFIG_VERSION
    family: SerializeAsAny[FamilyParams]
    label_names: tuple[str, ...] = ()
    settings: dict[str, float] = Field(default_factory=dict)
    """Numbers of a decision that were chosen on validation."""
    model: dict[str, Any] = Field(default_factory=dict)
    """How it is loaded: some fields of ModelParams."""
    precision: Literal["auto", "fp32", "bf16", "pure_bf16"] = "auto"

    @classmethod
    def of(
        cls,
        model: ModelParams,
        family: FamilyParams,
        runtime: RuntimeParams,
        label_names: tuple[str, ...],
        settings: Mapping[str, float],
    ) -> ServedConfig:
        """What to record."""
        return cls(
            family=family,
            label_names=label_names,
            settings=dict(settings),
            model=model.model_dump(mode="json", include=MODEL_FIELDS),
            precision=runtime.precision,
        )


def read_config(where: str, recorded: Mapping[str, Any] | None) -> ServedConfig:
    """What was recorded with the version `where`, by this apf or an older one. Raises RegistryError.

    A key that is missing gets its default; one that nobody knows any more is left out, and that is said.
    """
    if not recorded or "family" not in recorded:
        raise RegistryError(
            where, "a fine-tuned model of apf", "another one", "Name a model that `apf run` registered."
        )
    config = _up_to_date(where, dict(recorded))
    try:
        family = family_params(config["family"]["name"]).model_validate(config["family"], extra="ignore")
        found = ServedConfig.model_validate(config | {"family": family}, extra="ignore")
    except ValidationError as error:
        do = "Install the apf that registered it."
        raise RegistryError(where, "a configuration that this apf can read", str(error), do) from error
    model = {name: value for name, value in found.model.items() if name in MODEL_FIELDS}
    found = found.model_copy(update={"model": model})
    if left_out := sorted({name for name, _ in dotted(config)} - {name for name, _ in dotted(found.model_dump())}):
        logger.warning("%s: its configuration has what apf does not know: %s", where, ", ".join(left_out))
    return found


def _up_to_date(where: str, config: Recorded) -> Recorded:
    version = int(config.get("config_version", 1))
    if version > CONFIG_VERSION:
        do = "Install the apf that registered it, or a newer one."
        raise RegistryError(where, f"a configuration of version {CONFIG_VERSION} or older", str(version), do)
    for migrate in MIGRATIONS[version - 1 :]:
        config = migrate(config)
    return config | {"config_version": CONFIG_VERSION}
