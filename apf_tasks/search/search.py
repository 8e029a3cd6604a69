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
from dataclasses import dataclass, field, replace

from apf_tasks.artifacts import Selection, Split, TokenizedSplit, TrainedModel
from apf_tasks.cache.journal import computed, note_trials, or_pending
from apf_tasks.errors import ApfError, fails_trial
from apf_tasks.family import get_family
from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import with_trial
from apf_tasks.params.model import ModelParams
from apf_tasks.params.search import SearchParams
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
        now = SearchState(split, params, executor, get_family(params.family).sign(params.metric))
        states = _begin(now)
        for left in range(now.rungs - 1, -1, -1):
            states = _continue_best(now, states, left if len(states) > 1 else 0)
        finished = [state for state in states if state.models]
        _train_other_seeds(now, finished)
    models = tuple(model for state in finished for model in state.models)
    compared = sum(not state.failure for state in now.trials)
    return SearchResult(models, tuple(params.search.space), compared, tuple(now.ready.values()))


@dataclass
class SearchState:
    """One search under way."""

    split: Split
    params: Params
    executor: Executor
    sign: float
    """Of the metric: -1 where less is better."""
    ready: dict[str, TrialData] = field(default_factory=dict)
    """What trials are trained from, by the params that decide it."""
    trials: list[TrialState] = field(default_factory=list)
    """Those drawn so far."""
    steps: int | None = None
    """Optimizer steps of a trial with `train` as written, once the rows are known."""

    @property
    def search(self) -> SearchParams:
        """How it is searched."""
        return self.params.search

    @property
    def rungs(self) -> int:
        """How often trials are compared before their end; one stands for all in a plan that does not know the rows."""
        if self.steps is None:
            return 0 if self.search.halving is None else 1
        return rung_count(self.steps, self.search.halving)

    def gain(self, state: TrialState) -> float:
        """The trial's score, more being better; 0 without one."""
        return self.sign * (state.score or 0.0)

    def cost(self, trials: int) -> int:
        """Optimizer steps of so many trials, as `train` is written; 0 while the rows are not known."""
        return expected_steps(trials, self.steps, self.rungs, self.search.halving) if self.steps else 0


def _begin(now: SearchState) -> list[TrialState]:
    """Draw trials and train each to the first rung, or to the end where there is none."""
    source = trial_source(now.params)

    def drawn() -> Iterator[TrialState]:
        while (trial := source.ask()) is not None:
            state = TrialState(trial, with_trial(now.params, trial))
            if not _within_budget(now, state):
                logger.info("search     %d trials: the budget is spent", len(now.trials))
                return
            now.trials.append(state)
            yield state

    for state in _run_trials(now, drawn(), now.search.count):
        if state.failure or state.score is not None:
            source.tell(None if state.failure else now.gain(state))
    return _surviving(now, now.trials)


def _continue_best(now: SearchState, states: list[TrialState], left: int) -> list[TrialState]:
    """The best of the trials, each trained to the next rung; `left` rungs are still to come before the end."""
    assert now.search.halving is not None
    best = sorted(states, key=lambda state: -now.gain(state))  # stable: of equal ones the earlier
    best = best[: survivors(len(states), now.search.halving)]
    if len(best) < len(states):
        logger.info("search     %d of %d trials continue", len(best), len(states))
    continuing = [state for state in best if not state.models]  # who was alone is at the end already
    list(_run_trials(now, continuing, len(continuing), left))
    return _surviving(now, best)


def _train_other_seeds(now: SearchState, finished: list[TrialState]) -> None:
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
        for seed in range(state.params.train.seed + 1, state.params.train.seed + now.search.seeds)
    ]
    list(_run_trials(now, again, len(again), 0))
    for number, one in enumerate(again):
        finished[number // (now.search.seeds - 1)].models += one.models
    _report_progress(now)


def _surviving(now: SearchState, states: list[TrialState]) -> list[TrialState]:
    left = [state for state in states if not state.failure]
    if not left:
        reasons = "\n".join(f"  {label(state.trial)}: {state.failure}" for state in now.trials)
        do = "Fix the reasons above; `apf run` then trains only what failed."
        raise ApfError("search", "a trial that can be trained", f"{len(now.trials)} failed\n{reasons}\n", do)
    return left


def _run_trials(
    now: SearchState, states: Iterable[TrialState], count: int, left: int | None = None
) -> Iterator[TrialState]:
    """Train each of `count` to the rung before `left` others, or to the end; the first rung where None.

    As many at a time as the params say; each comes back when it is there, in order.
    """
    under_way: deque[tuple[TrialState, int, Future | None]] = deque()
    beside = min(count, now.search.parallel)
    for state in states:
        to_come = now.rungs if left is None else left
        under_way.append((state, to_come, _start(now, state, to_come, beside)))
        _report_progress(now)
        if len(under_way) == now.search.parallel:
            yield _finish(now, *under_way.popleft())
    while under_way:
        yield _finish(now, *under_way.popleft())


def _start(now: SearchState, state: TrialState, left: int, beside: int) -> Future | None:
    params, name = state.params, label(state.trial)
    with _record_failure(now, state):
        ready = _ready(now, params)
        values = (params.family, params.train, params.runtime, params.metric)
        inputs = TrainingInputs(ready.train, ready.validation, ready.base, *values)
        if not left:
            return now.executor.start(train_model.labelled(name), (inputs,), beside)
        return now.executor.start(train_rung.labelled(name), (inputs, _until(now, ready, params, left)), beside)
    return None


def _finish(now: SearchState, state: TrialState, left: int, result: Future | None) -> TrialState:
    with _record_failure(now, state):
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
    _report_progress(now)
    return state


@contextmanager
def _record_failure(now: SearchState, state: TrialState) -> Iterator[None]:
    """A search outlives a trial whose values cannot be trained; any other fault ends it, or it would choose."""
    try:
        yield
    except Exception as error:
        if now.search.count == 1 or not fails_trial(error):
            raise
        state.failure = f"{type(error).__name__}: {error}"


def _until(now: SearchState, ready: TrialData, params: Params, left: int) -> int:
    halving = now.search.halving
    assert halving is not None
    return or_pending(lambda: rung_step(total_steps(ready.train.examples, params.train), left, halving))


def _ready(now: SearchState, params: Params) -> TrialData:
    """Base and tokenized splits of a trial; made once for all trials that start alike."""
    key = params.model.model_dump_json() + params.tokenizer.model_dump_json()
    if key not in now.ready:
        base = base_model(now.split, params)
        differ = any(not name.startswith("train.") for name in now.search.space)
        name = label({"model": params.model.origin}) if differ else ""
        train, validation = (
            tokenize.labelled(f"{n} {name}".strip())(now.split, n, base, params.family) for n in ("train", "validation")
        )
        now.ready[key] = TrialData(base, train, validation)
    ready = now.ready[key]
    if now.steps is None and computed(ready.train) is not None:
        now.steps = total_steps(ready.train.examples, now.params.train)
    return ready


def _within_budget(now: SearchState, state: TrialState) -> bool:
    """Whether one more trial, with all it may still cost, stays within the budget. The first always does."""
    budget = now.search.budget
    try:
        _ready(now, state.params)
    except ApfError:
        return True  # it fails when it is trained, which is where that is said
    if not now.trials or now.steps is None:
        return True
    steps = now.cost(len(now.trials) + 1)
    seconds = sum(state.seconds for state in now.trials)
    minutes = steps * seconds / max(1, sum(state.step for state in now.trials)) / 60
    return (budget.steps is None or steps <= budget.steps) and (budget.minutes is None or minutes <= budget.minutes)


def _report_progress(now: SearchState) -> None:
    """Tell the journal how each trial stands, those that came farthest first, and of these the best."""

    def rank(state: TrialState) -> tuple[bool, int, float]:
        return bool(state.failure), -len(state.history), -now.gain(state)

    note_trials([as_row(state) for state in sorted(now.trials, key=rank)], now.cost(now.search.count))


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
