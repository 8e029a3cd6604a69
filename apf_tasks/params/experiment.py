"""What a user may write in a params file, and how it is read.

One YAML file is one experiment. Imports neither torch nor prefect nor mlflow: `apf check` has to answer at once.
Reading is in `file.py`; here is the shape alone.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from apf_tasks.errors import ParamsError
from apf_tasks.params.base import Frozen
from apf_tasks.params.data import DataParams, SplitParams
from apf_tasks.params.family import FamilyParams, canonical, family_params, family_record, is_own
from apf_tasks.params.gate import DriftParams, GateParams, NotifyParams, RegisterParams
from apf_tasks.params.model import ModelParams, TokenizerParams
from apf_tasks.params.search import EvaluationParams, SearchParams, SelectParams
from apf_tasks.params.train import RuntimeParams, TrainParams


class Params(Frozen):
    """One experiment."""

    name: str
    """Experiment name; the params file's name when not written."""
    family: SerializeAsAny[FamilyParams]
    """The kind of problem: a name, or a section with `name` and the family's options."""
    data: DataParams
    split: SplitParams = Field(default_factory=SplitParams)
    model: ModelParams
    tokenizer: TokenizerParams = Field(default_factory=TokenizerParams)
    train: TrainParams = Field(default_factory=TrainParams)
    runtime: RuntimeParams = Field(default_factory=RuntimeParams)
    search: SearchParams = Field(default_factory=SearchParams)
    select: SelectParams = Field(default_factory=SelectParams)
    test: EvaluationParams = Field(default_factory=EvaluationParams)
    register_as: RegisterParams = Field(default_factory=RegisterParams, alias="register")
    gate: GateParams = Field(default_factory=GateParams)
    drift: DriftParams = Field(default_factory=DriftParams)
    notify: NotifyParams = Field(default_factory=NotifyParams)

    @field_validator("family", mode="before")
    @classmethod
    def _known_family(cls, value: Any) -> Any:

        section = {"name": value} if isinstance(value, str) else value
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            return section
        name = canonical(section["name"])
        try:
            return family_params(name).model_validate({**section, "name": name})
        except ParamsError as error:
            found = f", found {error.found}" if is_own(name) else ""
            raise ValueError(f"expected {error.expected}{found}. {error.do}") from error

    @model_validator(mode="after")
    def _known_metric(self) -> Params:

        known = family_record(self.family).metrics
        if self.select.metric is not None and self.select.metric not in known:
            raise ValueError(f"select.metric: expected one of {', '.join(known)}, found {self.select.metric!r}")
        if self.gate.general_text is not None and not any(name.endswith("perplexity") for name in known):
            raise ValueError(f"gate.general_text: expected a language model, found the family {self.family.name}")
        return self

    @model_validator(mode="after")
    def _tokenizer_from_somewhere(self) -> Params:
        given = self.tokenizer.train is not None or self.tokenizer.base is not None
        if given != (self.model.init == "scratch"):
            raise ValueError("`tokenizer` (`train` or `base`) and `model.init: scratch` need each other")
        return self

    @model_validator(mode="after")
    def _devices_have_one_use(self) -> Params:
        if self.runtime.ranks > 1 and self.search.parallel > 1:
            raise ValueError("`runtime.devices` and `search.parallel` both use several devices: one has to be 1")
        return self

    @property
    def metric(self) -> str:
        """The validation metric that decides."""

        return self.select.metric or family_record(self.family).metrics[0]

    @property
    def model_name(self) -> str:
        """The name in the registry."""
        return self.register_as.name or self.name
