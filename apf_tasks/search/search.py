"""The search: trials are drawn, trained to a rung, compared there, and the best go on until some reach the end.

Knows nothing of Prefect: under a dry journal the same lines are the plan.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from apf_tasks.artifacts import Selection, Split, TokenizedSplit, TrainedModel
from apf_tasks.cache.journal import Unknown, note_trials
from apf_tasks.errors import ApfError, fails_trial
from apf_tasks.family import get_family
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import with_trial
from apf_tasks.params.model import ModelParams
from apf_tasks.search._trial_progress import Climber, Ready, as_row
from apf_tasks.search.executor import Crew, Result, crew_for
from apf_tasks.search.halving import expected_steps, rung_count, rung_step, survivors
from apf_tasks.search.trials import draws, label
from apf_tasks.stages import as_model_params, build_base, tokenize, train_model, train_rung
from apf_tasks.training.optim.schedules import total_steps

logger = logging.getLogger("apf")


@dataclass(frozen=True)
class Found:
    """What a search hands on."""

    models: tuple[TrainedModel, ...]
    """The models to choose from: those that reached the end."""
    searched: tuple[str, ...]
    """The dotted names in which trials differ."""
    compared: int
    """Trials that were compared on validation to get the models."""
    ready: tuple[Ready, ...]

    def start_of(self, selection: Selection) -> tuple[ModelParams, TokenizedSplit]:
        """What the chosen model was trained from."""
        if len(self.ready) > 1 and isinstance(selection, Unknown):
            return selection, selection  # type: ignore[return-value]
        chosen = [r for r in self.ready if len(self.ready) == 1 or r.base == selection.chosen.model]
        return chosen[0].base, chosen[0].train


def search(split: Split, params: Params) -> Found:
    """Train trials of the search space, and choose on validation which go on. Raises ApfError when none is left."""
    with crew_for(params) as crew:
        hunt = Hunt(split, params, crew)
        climbers = hunt.begin()
        for left in range(hunt.rungs - 1, -1, -1):
            climbers = hunt.go_on(climbers, left if len(climbers) > 1 else 0)
        finished = [climber for climber in climbers if climber.models]
        hunt.repeat(finished)
    models = tuple(model for climber in finished for model in climber.models)
    return Found(models, tuple(params.search.space), hunt.compared, tuple(hunt.ready.values()))


class Hunt:
    """One search under way."""

    def __init__(self, split: Split, params: Params, crew: Crew) -> None:
        self.split, self.params, self.search, self.crew = split, params, params.search, crew
        self.sign = get_family(params.family).sign(params.metric)
        self.ready: dict[str, Ready] = {}
        self.begun: list[Climber] = []
        self.steps: int | None = None
        """Optimizer steps of a trial with `train` as written, once the rows are known."""

    @property
    def rungs(self) -> int:
        """How often trials are compared before their end; one stands for all in a plan that does not know the rows."""
        if self.steps is None:
            return 0 if self.search.halving is None else 1
        return rung_count(self.steps, self.search.halving)

    @property
    def compared(self) -> int:
        """Trials that got a score on validation."""
        return sum(not climber.failure for climber in self.begun)

    def begin(self) -> list[Climber]:
        """Draw trials and train each to the first rung, or to the end where there is none."""
        source = draws(self.params)

        def drawn() -> Iterator[Climber]:
            while (trial := source.ask()) is not None:
                climber = Climber(trial, with_trial(self.params, trial))
                if not self._affordable(climber):
                    logger.info("search     %d trials: the budget is spent", len(self.begun))
                    return
                self.begun.append(climber)
                yield climber

        for climber in self._climb(drawn(), self.search.count):
            if climber.failure or climber.score is not None:
                source.tell(None if climber.failure else self.sign * (climber.score or 0.0))
        return self._left(self.begun)

    def go_on(self, climbers: list[Climber], left: int) -> list[Climber]:
        """The best of the climbers, each trained to the next rung; `left` rungs are still to come before the end."""
        assert self.search.halving is not None
        best = sorted(climbers, key=lambda c: -self.sign * (c.score or 0.0))  # stable: of equal ones the earlier
        best = best[: survivors(len(climbers), self.search.halving)]
        if len(best) < len(climbers):
            logger.info("search     %d of %d trials go on", len(best), len(climbers))
        climbing = [climber for climber in best if not climber.models]  # who was alone is at the end already
        list(self._climb(climbing, len(climbing), left))
        return self._left(best)

    def repeat(self, finished: list[Climber]) -> None:
        """Train trials that reached the end with other seeds."""
        again = [
            replace(
                climber,
                trial=climber.trial | {"train.seed": seed},
                params=with_trial(climber.params, {"train.seed": seed}),
                models=[],
                path=[],
            )
            for climber in finished
            for seed in range(climber.params.train.seed + 1, climber.params.train.seed + self.search.seeds)
        ]
        list(self._climb(again, len(again), 0))
        for number, one in enumerate(again):
            finished[number // (self.search.seeds - 1)].models += one.models
        self._note()

    def _left(self, climbers: list[Climber]) -> list[Climber]:
        left = [climber for climber in climbers if not climber.failure]
        if not left:
            reasons = "\n".join(f"  {label(c.trial)}: {c.failure}" for c in self.begun)
            do = "Correct what the reasons say; `apf run` again trains only what failed."
            raise ApfError("search", "a trial that can be trained", f"{len(self.begun)} failed\n{reasons}\n", do)
        return left

    def _climb(self, climbers: Iterable[Climber], count: int, left: int | None = None) -> Iterator[Climber]:
        """Train each of `count` to the rung before `left` others, or to the end; the first rung where None.

        As many at a time as the params say; each comes back when it is there, in order.
        """
        under_way: deque[tuple[Climber, int, Result | None]] = deque()
        beside = min(count, self.search.parallel)
        for climber in climbers:
            to_come = self.rungs if left is None else left
            under_way.append((climber, to_come, self._start(climber, to_come, beside)))
            self._note()
            if len(under_way) == self.search.parallel:
                yield self._finish(*under_way.popleft())
        while under_way:
            yield self._finish(*under_way.popleft())

    def _start(self, climber: Climber, left: int, beside: int) -> Result | None:
        params, name = climber.params, label(climber.trial)
        with self._outlive(climber):
            ready = self._ready(params)
            values = (params.family, params.train, params.runtime, params.metric)
            common = (ready.train, ready.validation, ready.base, *values)
            if not left:
                return self.crew.start(train_model.labelled(name), common, beside)
            return self.crew.start(train_rung.labelled(name), (*common, self._until(ready, params, left)), beside)
        return None

    def _finish(self, climber: Climber, left: int, result: Result | None) -> Climber:
        with self._outlive(climber):
            if result is not None and left:
                climber.rung = result()
                climber.failure = climber.last_rung.failure if climber.last_rung else ""
            elif result is not None:
                climber.models.append(result())
        if climber.failure:
            logger.warning("search     %s failed: %s", label(climber.trial), climber.failure.partition("\n")[0])
            _free_memory()
        elif climber.score is not None:
            climber.path.append((climber.step, climber.score))
        self._note()
        return climber

    @contextmanager
    def _outlive(self, climber: Climber) -> Iterator[None]:
        """A search outlives a trial whose values cannot be trained; any other fault ends it, or it would choose."""
        try:
            yield
        except Exception as error:
            if self.search.count == 1 or not fails_trial(error):
                raise
            climber.failure = f"{type(error).__name__}: {error}"

    def _until(self, ready: Ready, params: Params, left: int) -> int:
        if isinstance(ready.train, Unknown) or self.search.halving is None:
            return ready.train  # type: ignore[return-value]  # a plan: unknown like the rows
        return rung_step(total_steps(ready.train.examples, params.train), left, self.search.halving)

    def _ready(self, params: Params) -> Ready:
        """Base and tokenized splits of a trial; made once for all trials that start alike."""
        key = params.model.model_dump_json() + params.tokenizer.model_dump_json()
        if key not in self.ready:
            base = base_model(self.split, params)
            name = label({"model": params.model.origin}) if self._origins() else ""
            train, validation = (
                tokenize.labelled(f"{n} {name}".strip())(self.split, n, base, params.family)
                for n in ("train", "validation")
            )
            self.ready[key] = Ready(base, train, validation)
        ready = self.ready[key]
        if self.steps is None and not isinstance(ready.train, Unknown):
            self.steps = total_steps(ready.train.examples, self.params.train)
        return ready

    def _origins(self) -> list[str]:
        return [name for name in self.search.space if not name.startswith("train.")]

    def _affordable(self, climber: Climber) -> bool:
        """Whether one more trial, with all it may still cost, stays within the budget. The first always does."""
        budget = self.search.budget
        try:
            self._ready(climber.params)
        except ApfError:
            return True  # it fails when it is trained, which is where that is said
        if not self.begun or self.steps is None:
            return True
        steps = self._cost(len(self.begun) + 1)
        seconds = sum(climber.seconds for climber in self.begun)
        minutes = steps * seconds / max(1, sum(climber.step for climber in self.begun)) / 60
        return (budget.steps is None or steps <= budget.steps) and (budget.minutes is None or minutes <= budget.minutes)

    def _cost(self, trials: int) -> int:
        """Optimizer steps of so many trials, as `train` is written; 0 while the rows are not known."""
        return expected_steps(trials, self.steps, self.rungs, self.search.halving) if self.steps else 0

    def _note(self) -> None:
        """Tell the journal how each trial stands, those that came farthest first, and of these the best."""

        def rank(climber: Climber) -> tuple[bool, int, float]:
            return bool(climber.failure), -len(climber.path), -self.sign * (climber.score or 0.0)

        note_trials([as_row(climber) for climber in sorted(self.begun, key=rank)], self._cost(self.search.count))


def base_model(split: Split, params: Params) -> ModelParams:
    """The model to start from: as the params name it, or built from scratch with a tokenizer of the train split."""
    if params.model.init == "pretrained":
        return params.model
    return as_model_params(build_base(split, params.model, params.tokenizer, params.family), params.model)


def _free_memory() -> None:
    """Give back what a failed trial held."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
