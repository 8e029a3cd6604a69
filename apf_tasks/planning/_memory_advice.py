"""What to change when a training does not fit: the cheapest first, each tried by predicting it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from apf_tasks.errors import ParamsError
from apf_tasks.examples import Examples
from apf_tasks.inputs import TrainingInputs
from apf_tasks.planning.devices import device_type
from apf_tasks.planning.memory import Memory, predict
from apf_tasks.training.loop import max_tokens_per_forward

MOST_RANKS = 8
"""GPUs of a usual machine."""


@dataclass(frozen=True)
class Change:
    """Overrides for `apf run`, what they cost, and what is left to take."""

    overrides: tuple[str, ...]
    cost: str
    memory: Memory


@dataclass(frozen=True)
class _Step:
    """One change: how it is written, what it costs, what it makes of a trial."""

    overrides: tuple[str, ...]
    cost: str
    apply: Callable[[TrainingInputs], TrainingInputs]
    cut: int | None = None


def memory_options(trial: TrainingInputs, device: str, room: int) -> list[Change]:
    """Single changes after which the training takes at most `room` bytes, the cheapest first.

    Where none is enough alone, the first that are enough together; an empty list where all are not.
    """
    steps = list(_steps(trial, device))
    alone = [found for step in steps if (found := _tried(trial, device, [step])) and found.memory.total <= room]
    if alone:
        return alone
    taken: list[_Step] = []
    for step in steps:
        # the later of two that write the same key stands for both
        keys = {text.partition("=")[0] for text in step.overrides}
        without = [t for t in taken if not keys & {text.partition("=")[0] for text in t.overrides}]
        found = _tried(trial, device, [*without, step])
        if found is None:
            continue
        taken = [*without, step]
        if found.memory.total <= room:
            return [found]
    return []


def _tried(trial: TrainingInputs, device: str, steps: list[_Step]) -> Change | None:
    """What these changes bring together; None where they do not go together."""
    changed = trial
    for step in steps:
        changed = step.apply(changed)
    if changed.params.step_in_backward and changed.runtime.ranks > 1:
        return None
    cut = next((step.cut for step in steps if step.cut), None)
    try:
        memory = predict(changed, device, cut)
    except ParamsError:
        return None
    texts = tuple(text for step in steps for text in step.overrides)
    return Change(texts, "; ".join(step.cost for step in steps), memory)


def _steps(trial: TrainingInputs, device: str) -> Iterator[_Step]:
    """The changes that are worth a try, in order of cost."""
    params, runtime = trial.params, trial.runtime
    sizes = Examples.of(trial.train).sizes
    longest = int(sizes.max())
    most = max_tokens_per_forward(params, device_type(device))
    most = min(most, longest * min(params.batch_size, len(sizes)))
    if not params.step_in_backward:
        for tokens in sorted({max(longest, most // 2), max(longest, most // 4), longest}, reverse=True):
            if tokens < most:
                yield _train("same result; many short passes are slower", micro_batch_tokens=tokens)
    for activations, cost in (("selective", "some time, same result"), ("recompute", "about a third more time")):
        if runtime.activations == "keep":
            yield _runtime(cost, activations=activations)
    if device != "cpu":
        yield from _more_gpus(trial)
        if params.optimizer.name == "adamw":
            yield _optimizer("nearly the same updates as AdamW; needs torchao", "adamw_8bit")
    if params.optimizer.name != "adafactor":
        yield _optimizer("a different optimizer: different updates, different best learning rates", "adafactor")
    if not params.step_in_backward and params.optimizer.by_tensor and runtime.ranks == 1:
        cost = "no clipping of the gradient; a step is one forward pass"
        yield _train(cost, max_grad_norm=None, step_in_backward=True)
    if longest >= 64:
        text, cost = f"model.max_tokens={longest // 2}", "the ends of long rows are cut off"
        yield _Step((text,), cost, lambda given: given, longest // 2)


def _more_gpus(trial: TrainingInputs) -> Iterator[_Step]:
    """The model divided over 2, 4, 8 … GPUs."""
    ranks = 2
    while ranks <= MOST_RANKS and trial.params.optimizer.shards and not trial.params.step_in_backward:
        if ranks > trial.runtime.devices:
            yield _runtime(f"{ranks} such GPUs", devices=ranks, shard=True)
        ranks *= 2


def _train(cost: str, **values: object) -> _Step:
    texts = tuple(f"train.{name}={_written(value)}" for name, value in values.items())
    return _Step(texts, cost, lambda given: given._replace(params=given.params.model_copy(update=values)))


def _runtime(cost: str, **values: object) -> _Step:
    texts = tuple(f"runtime.{name}={_written(value)}" for name, value in values.items())
    return _Step(texts, cost, lambda given: given._replace(runtime=given.runtime.model_copy(update=values)))


def _optimizer(cost: str, name: str) -> _Step:
    def apply(given: TrainingInputs) -> TrainingInputs:
        options = given.params.model_dump(by_alias=True) | {"optimizer": {"name": name}}
        return given._replace(params=type(given.params).model_validate(options))

    return _Step((f"train.optimizer={name}",), cost, apply)


def _written(value: object) -> str:
    return "null" if value is None else str(value).lower()
