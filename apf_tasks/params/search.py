"""The sections `search`, `select` and `test`: how the best combination of parameters is found."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from apf_tasks.params.base import Frozen, PositiveInt

SEARCHABLE = ("train", "model", "tokenizer")
"""Sections whose values may be searched: others change the data or the task, and scores could not be compared."""


class Range(Frozen):
    """Numbers between two bounds, both included; whole ones when both bounds are."""

    low: int | float
    high: int | float
    log: bool = False
    """Every factor alike: what learning rates want."""

    @model_validator(mode="after")
    def _ascends(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"the range runs from {self.low} to {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("a log range needs a low above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


class HalvingParams(Frozen):
    """Successive halving: all trials train briefly, the best continue (Jamieson & Talwalkar 2016, arXiv:1502.07943)."""

    eta: Annotated[float, Field(gt=1)] = 3
    """The best 1/eta of the trials continue to the next rung, which is eta times as long."""
    min_steps: PositiveInt = 16
    """Fewest optimizer steps at which trials are compared."""


class BudgetParams(Frozen):
    """What a search may cost. No trial is started that would exceed it, counting the rungs it may reach."""

    steps: PositiveInt | None = None
    """Optimizer steps of all trials together."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes of training of all trials together."""


class SearchParams(Frozen):
    """The combinations of parameters to compare on validation."""

    space: dict[str, list[Any] | Range] = Field(default_factory=dict)
    """Dotted name -> values to try, or a range {low, high, log}; names in `train`, `model` or `tokenizer`. A value may
    be a section: `model: [{base: A}, {base: B}]`. Empty: one training with `train` as it stands. A name that is
    overridden on the command line is not searched."""
    strategy: Literal["grid", "random", "tpe"] = "grid"
    """`grid`: all combinations. `random`: drawn independently. `tpe`: drawn where earlier trials did well (Bergstra et
    al. 2011)."""
    trials: PositiveInt | None = None
    """How many combinations `random` and `tpe` draw; 16 when empty. Raising it later trains only the new ones."""
    seed: int = 0
    """Seed of the draws."""
    halving: HalvingParams | None = None
    """Stop the worst trials early. Empty: train all to the end."""
    parallel: PositiveInt = 1
    """Trials that are trained at the same time, each in a process of its own. On CUDA each has its own device; on
    a CPU they share the threads."""
    seeds: PositiveInt = 1
    """Trainings of each trial that reached the end, with `train.seed`, `train.seed` + 1, …; the mean score decides."""
    budget: BudgetParams = Field(default_factory=BudgetParams)

    @field_validator("space", mode="before")
    @classmethod
    def _searchable(cls, space: Any) -> Any:
        for name, values in space.items() if isinstance(space, dict) else ():
            section = str(name).partition(".")[0]
            if section not in SEARCHABLE:
                raise ValueError(f"{name!r} cannot be searched; only {', '.join(SEARCHABLE)} can")
            if values == []:
                raise ValueError(f"{name!r} has no values to try")
        return space

    @model_validator(mode="after")
    def _ranges_are_drawn(self) -> SearchParams:
        ranges = [name for name, values in self.space.items() if isinstance(values, Range)]
        if self.strategy == "grid" and ranges:
            raise ValueError(f"`strategy: grid` needs lists of values; {ranges[0]!r} is a range: write random or tpe")
        if self.strategy == "grid" and self.trials is not None:
            raise ValueError("`trials` requires `strategy: random` or `tpe`; a grid trains all combinations")
        return self

    @property
    def count(self) -> int:
        """Trials that will be begun, if the budget allows."""
        if self.strategy == "grid" or not self.space:
            return math.prod(len(values) for values in self.space.values() if isinstance(values, list))
        return self.trials or 16


class SelectParams(Frozen):
    """How the best candidate is chosen on validation."""

    metric: str | None = None
    """Validation metric. Empty: the family's own."""
    rule: Literal["best", "one_standard_error"] = "best"
    """`best`: the best score. `one_standard_error`: the cheapest trial whose score is within one standard error of the
    best (Breiman et al. 1984, Classification and Regression Trees, section 3.4.3)."""


class EvaluationParams(Frozen):
    """The one evaluation on the test split."""

    section: ClassVar[str] = "test"
    """Its name in stage keys and in the params."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the bootstrap intervals."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples."""
    seed: int = 0
    """Seed of the resampling."""
    before_fine_tuning: bool = True
    """Also score the model as it was before fine-tuning (its head, if new, drawn at random) as a baseline."""
