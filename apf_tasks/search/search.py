"""The search: trials are drawn, trained to a rung, compared there, and the best go on until some reach the end.

Does not import Prefect: under a dry journal the same lines are the plan.
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
from apf_tasks.cache.journal import computed, note_trials, or_pending
from apf_tasks.errors import ApfError, fails_trial
from apf_tasks.family import get_family
from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import with_trial
from apf_tasks.params.model import ModelParams
from apf_tasks.search._trial_progress import TrialData, TrialState, as_row
from apf_tasks.search.executor import Executor, Future, executor_for
from apf_tasks.search.halving import expected_steps, rung_count, rung_step, survivors
from apf_tasks.search.trials import label, trial_source
from apf_tasks.stages import as_model_params, build_base, tokenize, train_model, train_rung
from apf_tasks.training.optim.schedules import total_steps

logger = logging.getLogger("apf")


@dataclass(frozen=True)
class SearchResult:
    """What a search hands on."""

    models: tuple[TrainedModel, ...]
    """The models to choose from: those that reached the end."""
    searched: tuple[str, ...]
    """The dotted names in which trials differ."""
    compared: int
    """Trials that were compared on validation to get the models."""
    ready: tuple[TrialData, ...]

    def start_of(self, selection: Selection) -> tuple[ModelParams, TokenizedSplit]:
        """What the chosen model was trained from."""
        if len(self.ready) == 1:
            return self.ready[0].base, self.ready[0].train
        chosen = or_pending(lambda: next(r for r in self.ready if r.base == selection.chosen.model))
        return or_pending(lambda: chosen.base), or_pending(lambda: chosen.train)


def search(split: Split, params: Params) -> SearchResult:
    """Train trials of the search space, and choose on validation which go on. Raises ApfError when none is left."""
    with executor_for(params) as executor:
        run = SearchRun(split, params, executor)
        states = run.begin()
        for left in range(run.rungs - 1, -1, -1):
            states = run.go_on(states, left if len(states) > 1 else 0)
        finished = [state for state in states if state.models]
        run.train_other_seeds(finished)
    models = tuple(model for state in finished for model in state.models)
    return SearchResult(models, tuple(params.search.space), run.compared, tuple(run.ready.values()))


class SearchRun:
    """One search under way."""

    def __init__(self, split: Split, params: Params, executor: Executor) -> None:
        self.split, self.params, self.search, self.executor = split, params, params.search, executor
        self.sign = get_family(params.family).sign(params.metric)
        self.ready: dict[str, TrialData] = {}
        self.begun: list[TrialState] = []
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
        return sum(not state.failure for state in self.begun)

    def begin(self) -> list[TrialState]:
        """Draw trials and train each to the first rung, or to the end where there is none."""
        source = trial_source(self.params)

        def drawn() -> Iterator[TrialState]:
            while (trial := source.ask()) is not None:
                state = TrialState(trial, with_trial(self.params, trial))
                if not self._within_budget(state):
                    logger.info("search     %d trials: the budget is spent", len(self.begun))
                    return
                self.begun.append(state)
                yield state

        for state in self._run_trials(drawn(), self.search.count):
            if state.failure or state.score is not None:
                source.tell(None if state.failure else self.sign * (state.score or 0.0))
        return self._surviving(self.begun)

    def go_on(self, states: list[TrialState], left: int) -> list[TrialState]:
        """The best of the climbers, each trained to the next rung; `left` rungs are still to come before the end."""
        assert self.search.halving is not None
        best = sorted(states, key=lambda c: -self.sign * (c.score or 0.0))  # stable: of equal ones the earlier
        best = best[: survivors(len(states), self.search.halving)]
        if len(best) < len(states):
            logger.info("search     %d of %d trials continue", len(best), len(states))
        continuing = [state for state in best if not state.models]  # who was alone is at the end already
        list(self._run_trials(continuing, len(continuing), left))
        return self._surviving(best)

    def train_other_seeds(self, finished: list[TrialState]) -> None:
        """Train trials that reached the end with other seeds."""
        again = [
            replace(
                state,
                trial=state.trial | {"train.seed": seed},
                params=with_trial(state.params, {"train.seed": seed}),
                models=[],
                history=[],
            )
            for state in finished
            for seed in range(state.params.train.seed + 1, state.params.train.seed + self.search.seeds)
        ]
        list(self._run_trials(again, len(again), 0))
        for number, one in enumerate(again):
            finished[number // (self.search.seeds - 1)].models += one.models
        self._report_progress()

    def _surviving(self, states: list[TrialState]) -> list[TrialState]:
        left = [state for state in states if not state.failure]
        if not left:
            reasons = "\n".join(f"  {label(c.trial)}: {c.failure}" for c in self.begun)
            do = "Fix the reasons above; `apf run` then trains only what failed."
            raise ApfError("search", "a trial that can be trained", f"{len(self.begun)} failed\n{reasons}\n", do)
        return left

    def _run_trials(self, states: Iterable[TrialState], count: int, left: int | None = None) -> Iterator[TrialState]:
        """Train each of `count` to the rung before `left` others, or to the end; the first rung where None.

        As many at a time as the params say; each comes back when it is there, in order.
        """
        under_way: deque[tuple[TrialState, int, Future | None]] = deque()
        beside = min(count, self.search.parallel)
        for state in states:
            to_come = self.rungs if left is None else left
            under_way.append((state, to_come, self._start(state, to_come, beside)))
            self._report_progress()
            if len(under_way) == self.search.parallel:
                yield self._finish(*under_way.popleft())
        while under_way:
            yield self._finish(*under_way.popleft())

    def _start(self, state: TrialState, left: int, beside: int) -> Future | None:
        params, name = state.params, label(state.trial)
        with self._record_failure(state):
            ready = self._ready(params)
            values = (params.family, params.train, params.runtime, params.metric)
            inputs = TrainingInputs(ready.train, ready.validation, ready.base, *values)
            if not left:
                return self.executor.start(train_model.labelled(name), (inputs,), beside)
            return self.executor.start(train_rung.labelled(name), (inputs, self._until(ready, params, left)), beside)
        return None

    def _finish(self, state: TrialState, left: int, result: Future | None) -> TrialState:
        with self._record_failure(state):
            if result is not None and left:
                state.rung = result()
                state.failure = state.last_rung.failure if state.last_rung else ""
            elif result is not None:
                state.models.append(result())
        if state.failure:
            logger.warning("search     %s failed: %s", label(state.trial), state.failure.partition("\n")[0])
            _free_memory()
        elif state.score is not None:
            state.history.append((state.step, state.score))
        self._report_progress()
        return state

    @contextmanager
    def _record_failure(self, state: TrialState) -> Iterator[None]:
        """A search outlives a trial whose values cannot be trained; any other fault ends it, or it would choose."""
        try:
            yield
        except Exception as error:
            if self.search.count == 1 or not fails_trial(error):
                raise
            state.failure = f"{type(error).__name__}: {error}"

    def _until(self, ready: TrialData, params: Params, left: int) -> int:
        halving = self.search.halving
        assert halving is not None
        return or_pending(lambda: rung_step(total_steps(ready.train.examples, params.train), left, halving))

    def _ready(self, params: Params) -> TrialData:
        """Base and tokenized splits of a trial; made once for all trials that start alike."""
        key = params.model.model_dump_json() + params.tokenizer.model_dump_json()
        if key not in self.ready:
            base = base_model(self.split, params)
            name = label({"model": params.model.origin}) if self._origins() else ""
            train, validation = (
                tokenize.labelled(f"{n} {name}".strip())(self.split, n, base, params.family)
                for n in ("train", "validation")
            )
            self.ready[key] = TrialData(base, train, validation)
        ready = self.ready[key]
        if self.steps is None and computed(ready.train) is not None:
            self.steps = total_steps(ready.train.examples, self.params.train)
        return ready

    def _origins(self) -> list[str]:
        return [name for name in self.search.space if not name.startswith("train.")]

    def _within_budget(self, state: TrialState) -> bool:
        """Whether one more trial, with all it may still cost, stays within the budget. The first always does."""
        budget = self.search.budget
        try:
            self._ready(state.params)
        except ApfError:
            return True  # it fails when it is trained, which is where that is said
        if not self.begun or self.steps is None:
            return True
        steps = self._cost(len(self.begun) + 1)
        seconds = sum(state.seconds for state in self.begun)
        minutes = steps * seconds / max(1, sum(state.step for state in self.begun)) / 60
        return (budget.steps is None or steps <= budget.steps) and (budget.minutes is None or minutes <= budget.minutes)

    def _cost(self, trials: int) -> int:
        """Optimizer steps of so many trials, as `train` is written; 0 while the rows are not known."""
        return expected_steps(trials, self.steps, self.rungs, self.search.halving) if self.steps else 0

    def _report_progress(self) -> None:
        """Tell the journal how each trial stands, those that came farthest first, and of these the best."""

        def rank(state: TrialState) -> tuple[bool, int, float]:
            return bool(state.failure), -len(state.history), -self.sign * (state.score or 0.0)

        note_trials([as_row(state) for state in sorted(self.begun, key=rank)], self._cost(self.search.count))


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
