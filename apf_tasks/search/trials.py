"""Which combinations of parameters a search tries, and how far each is trained before it is compared."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from apf_tasks.params.experiment import Params
from apf_tasks.params.file import Trial, grid
from apf_tasks.params.search import Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class TrialSource(Protocol):
    """Where trials come from. The same scores told in the same order give the same trials: a search that is run again
    asks for what is known already, and goes on where it stopped."""

    def ask(self) -> Trial | None:
        """The next trial, or None when there is none left."""

    def tell(self, score: float | None) -> None:
        """The validation score of the earliest trial that was not told yet, more being better; None when it failed."""


def trial_source(params: Params) -> TrialSource:
    """The trials of an experiment."""
    if params.search.strategy == "grid" or not params.search.space:
        return GridSource(params)
    return OptunaSource(params)


class GridSource:
    """All combinations, the last name changing first."""

    def __init__(self, params: Params) -> None:
        self._left: Iterator[Trial] = iter(grid(params))

    def ask(self) -> Trial | None:
        """The next combination."""
        return next(self._left, None)

    def tell(self, score: float | None) -> None:
        """A grid does not care."""


class OptunaSource:
    """Combinations that Optuna draws: independently, or by its tree-structured Parzen estimator."""

    def __init__(self, params: Params) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("optuna").setLevel(logging.WARNING)
        search = params.search
        samplers = optuna.samplers
        sampler = (samplers.TPESampler if search.strategy == "tpe" else samplers.RandomSampler)(seed=search.seed)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._space = search.space
        self._distributions = {name: _distribution(values) for name, values in search.space.items()}
        self._left = search.count
        self._asked: deque[optuna.trial.Trial] = deque()

    def ask(self) -> Trial | None:
        """The next draw."""
        if not self._left:
            return None
        self._left -= 1
        self._asked.append(self._study.ask(self._distributions))
        drawn = self._asked[-1].params
        return {n: v[drawn[n]] if isinstance(v, list) else drawn[n] for n, v in self._space.items()}

    def tell(self, score: float | None) -> None:
        """What the sampler learns from."""
        from optuna.trial import TrialState

        if score is None:
            self._study.tell(self._asked.popleft(), state=TrialState.FAIL)
        else:
            self._study.tell(self._asked.popleft(), score)


def _distribution(values: list[Any] | Range) -> BaseDistribution:
    """A list of values is drawn by position, for Optuna's categories can be no sections."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution(range(len(values)))
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def label(trial: Trial) -> str:
    """How a trial is called in front of people: `learning_rate=3e-05`."""
    shown = (f"{n.removeprefix('train.')}={_short(v)}" for n, v in trial.items())
    return " ".join(shown)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return "/".join(_short(v) for n, v in value.items() if n != "sha256")
    text = str(value)
    return text if len(text) <= 40 else f"…{text[-38:]}"
