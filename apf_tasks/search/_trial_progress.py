"""One trial of a search on its way from rung to rung."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from apf_tasks.artifacts import Rung, TokenizedSplit, TrainedModel
from apf_tasks.cache.journal import computed
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import Trial
from apf_tasks.params.model import ModelParams
from apf_tasks.search.trials import label


@dataclass(frozen=True)
class TrialData:
    """What a trial is trained from."""

    base: ModelParams
    train: TokenizedSplit
    validation: TokenizedSplit


@dataclass
class TrialState:
    """One trial on its way."""

    trial: Trial
    params: Params
    """The experiment with the trial's values."""
    models: list[TrainedModel] = field(default_factory=list)
    """When it has reached the end: one per seed."""
    rung: Rung | None = None
    """The last one it was compared at."""
    history: list[tuple[int, float]] = field(default_factory=list)
    """Step and score of each time it was compared."""
    failure: str = ""

    @property
    def trained(self) -> list[TrainedModel]:
        """Its models; a plan knows those alone that are stored."""
        return [model for model in self.models if computed(model) is not None]

    @property
    def last_rung(self) -> Rung | None:
        """Its rung, where that is known."""
        return computed(self.rung)

    @property
    def score(self) -> float | None:
        """The last known validation score; at the end the mean over the seeds."""
        if self.trained:
            return sum(model.scores[self.params.metric] for model in self.trained) / len(self.trained)
        return self.last_rung.score if self.last_rung else None

    @property
    def step(self) -> int:
        """Optimizer steps it has been trained for."""
        if self.trained:
            return self.trained[0].optimizer_steps
        return self.last_rung.step if self.last_rung else 0

    @property
    def seconds(self) -> float:
        """Of training, all seeds together."""
        if self.trained:
            return sum(model.train_seconds for model in self.trained)
        return self.last_rung.train_seconds if self.last_rung else 0.0


def as_row(state: TrialState) -> dict[str, Any]:
    """One trial as a person wants to see it."""
    rung = state.last_rung
    runs = [model.run_id for model in state.trained]
    return {
        "trial": {n: json.dumps(v) if isinstance(v, dict) else v for n, v in state.trial.items()},
        "label": label(state.trial),
        "score": state.score,
        "step": state.step,
        "steps": state.step if state.trained else rung.steps if rung else 0,
        "seconds": state.seconds,
        "run_ids": runs or ([rung.run_id] if rung else []),
        "path": state.history,
        "failure": state.failure,
    }
