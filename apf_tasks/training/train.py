"""The train stage: one trial from a pretrained model to its best weights, resumable at any moment."""

from __future__ import annotations

import functools
import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from apf_tasks.artifacts import TrainedModel
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.cache.journal import current_label, labelled_as
from apf_tasks.cache.store import CHECKPOINT_DIR, PAUSED
from apf_tasks.data.rows import write_rows
from apf_tasks.errors import DivergedError, InterruptedByUser
from apf_tasks.evaluation.predictor import metric_scores, predict_and_tune, row_statistics
from apf_tasks.family import Prediction
from apf_tasks.inputs import TrainingInputs
from apf_tasks.params.base import dotted
from apf_tasks.runtime.calls import Contexts
from apf_tasks.runtime.devices import peak_memory_gib
from apf_tasks.runtime.launch import check_caller, run_on_ranks
from apf_tasks.runtime.progress import progress
from apf_tasks.runtime.ranks import Ranks
from apf_tasks.runtime.sharding import full_state_dict
from apf_tasks.runtime.signals import stop_signals
from apf_tasks.tracking import run_logger
from apf_tasks.training._compile import Compiler
from apf_tasks.training.checkpoints import Checkpointer
from apf_tasks.training.loop import Step
from apf_tasks.training.state import TrainingState, prepare_training
from apf_tasks.training.weights import check_all_parameters_changed, load_best, save_best

logger = logging.getLogger("apf")


def train_model(out: Path, trial: TrainingInputs) -> TrainedModel:
    """Update every parameter of the base on `train`; keep the weights that score best by `metric` on `validation`.

    Continues from the checkpoint that an interrupted predecessor left under `out`, on as many devices as the trial's
    `runtime` says. Raises DivergedError, InterruptedByUser (after a checkpoint) and ModelError.
    """
    return run_on_ranks(trial.runtime, _train_model, out, trial, within=recording_contexts())


def recording_contexts() -> Contexts:
    """What makes a rank record in the MLflow run of this process, under the label of this stage call."""
    pipeline, label = run_logger.current_pipeline(), current_label()
    return (functools.partial(run_logger.within, pipeline), functools.partial(labelled_as, label))


def _train_model(out: Path, trial: TrainingInputs) -> TrainedModel:
    """The same in one process, be it one of several ranks."""
    training = prepare_training(out, trial)
    resumed_from = training.progress.step or None
    with trial_run(training) as run:
        run_until(training, run, training.steps)
        return _finish(training, run, resumed_from)


class NullRun(run_logger.TrialRun):
    """The run of a rank that is not the first: nothing is sent."""

    def __init__(self) -> None:
        self.run_id = ""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing: the first rank logs."""

    def flush(self) -> None:
        """Nothing."""


@contextmanager
def trial_run(training: TrainingState) -> Iterator[run_logger.TrialRun]:
    """The MLflow run of the trial; says where the trial continues. The first rank alone has one."""
    if not training.ranks.first:
        yield NullRun()
        return
    resumed_from = training.progress.step or None
    if resumed_from:
        logger.info("           continuing from the checkpoint at step %d of %d", resumed_from, training.steps)
    model = training.trial.model
    facts = {"model.base": model.base, "model.max_tokens": model.max_tokens, "family.name": training.trial.family.name}
    facts |= dict(dotted(training.params.model_dump(mode="json"), "train."))
    with run_logger.trial_run(training.out, current_label(), facts, resumed_from) as run:
        yield run


def run_until(training: TrainingState, run: run_logger.TrialRun, until: int) -> None:
    """Train to step `until` of the whole, or to the end of patience. What comes after does not change what is done."""
    if training.progress.stopped or training.progress.step >= until:
        return
    if training.ranks.first:
        (training.out / CHECKPOINT_DIR / PAUSED).unlink(missing_ok=True)
    network, loop = training.network, training.steps_to_come()
    compiler = Compiler(network.model, training.trial.runtime, network.place)
    advancing = progress(f"train {current_label()}".strip(), until, "steps")
    with checkpoints(training) as kept, stop_signals() as stopping, advancing as advance, closing(loop):
        saved = time.monotonic()
        for step in loop:
            _advance(training, step)
            run.log(step.step, _step_metrics(step, training.ranks))
            if step.step % training.evaluate_every == 0 or step.step == training.steps:
                run.log(step.step, {f"validation/{k}": v for k, v in _validate(training).items()})
            advance(step.step, _progress_text(training))
            compiler.observe_step(step.seconds, training.steps - step.step)
            late = time.monotonic() - saved > training.trial.runtime.checkpoint_minutes * 60
            due, signal_number = training.ranks.all_reduce_max([late, *(stopping or [0])[:1]])  # the ranks do the same
            check_caller()
            if due or signal_number:
                run.flush()  # points up to the checkpoint first: a resumed run repeats only later ones
                kept.save_async(training.progress)
                saved = time.monotonic()
            if signal_number:
                kept.wait()
                raise _interrupted(training, int(signal_number))
            if training.progress.stopped:
                logger.info("           stopping early: no better score in %d validations", training.params.patience)
                break
            if step.step == until:
                break


def checkpoints(training: TrainingState) -> Checkpointer:
    """What writes the states of a training."""
    return Checkpointer(training.out, training.network.model, training.optimizer, training.network.place.sharded)


def _advance(training: TrainingState, step: Step) -> None:
    now = training.progress
    training.progress = now.model_copy(
        update={
            "step": step.step,
            "train_seconds": now.train_seconds + step.seconds,
            "waited_seconds": now.waited_seconds + step.waited,
            "tokens": now.tokens + step.tokens,
            "padded_tokens": now.padded_tokens + step.padded_tokens,
        }
    )


def _validate(training: TrainingState) -> dict[str, float]:
    """Score on validation; keep the weights when they are the best so far."""
    scored = predict_and_tune(training.network, training.validation, training.validation_rows)
    scores = _scores(training, scored[0])
    metric, now = training.trial.metric, training.progress
    training.validated = (now.step, scores)
    if _is_better(scores, now.best_scores, metric, training.network.family.sign(metric)):
        save_best(training.out, training.network.model, now.step)
        training.best = scored
        update: dict[str, Any] = {"best_step": now.step, "best_scores": scores, "validations_without_gain": 0}
    else:
        waited = now.validations_without_gain + 1
        patience = training.params.patience
        update = {"validations_without_gain": waited, "stopped": patience is not None and waited >= patience}
    training.progress = now.model_copy(update=update)
    return scores


def _is_better(scores: dict[str, float], best: dict[str, float], metric: str, sign: int) -> bool:
    """Whether to keep these weights: the first are better than none, and every number is better than not-a-number."""
    if not best or math.isnan(best[metric]):
        return True
    return sign * scores[metric] > sign * best[metric]


def validate_now(training: TrainingState, run: run_logger.TrialRun) -> dict[str, float]:
    """Validation scores of the weights as they are; whether these are the best so far is not asked."""
    step, scores = training.validated
    if step != training.progress.step:
        scored = predict_and_tune(training.network, training.validation, training.validation_rows)
        scores = _scores(training, scored[0])
        run.log(training.progress.step, {f"validation/{name}": value for name, value in scores.items()})
    return scores


def _scores(training: TrainingState, predictions: list[Prediction]) -> dict[str, float]:
    family = training.network.family
    references = family.reference(training.validation_rows)
    return dict(metric_scores(family, row_statistics(family, references, predictions, training.network.label_names)))


def _finish(training: TrainingState, run: run_logger.TrialRun, resumed_from: int | None) -> TrainedModel:
    """Go back to the best weights, check that all of them moved, and write the model."""
    network, out, model = training.network.model, training.out, training.trial.model
    now = training.progress
    check_score(now.best_scores, training.trial.metric)
    training.ranks.barrier()  # nobody reads before the first rank has written
    load_best(out, network, now.best_step)
    changed = check_all_parameters_changed(network, now.initial_digests)
    scored = training.best or predict_and_tune(training.network, training.validation, training.validation_rows)
    predictions, settings = scored
    fingerprint = _write_model(training, predictions)
    facts: dict[str, Any] = {
        "parameters": network.num_parameters(),
        "trainable_parameters": network.num_parameters(only_trainable=True),
        "parameters_changed": changed,
        "peak_memory_gib": round(training.ranks.all_reduce_max([peak_memory_gib(training.network.place.device)])[0], 3),
        "tokens_per_second": round(now.tokens / max(1e-9, now.train_seconds), 1),
        "padding_fraction": round(1 - now.tokens / max(1, now.padded_tokens), 4),
        "train_seconds": round(now.train_seconds, 2),
        "data_waiting_fraction": round(now.waited_seconds / max(1e-9, now.train_seconds), 5),
    }
    run.log(now.step, {f"system/{name}": value for name, value in facts.items()})
    run.log(now.step, {"validation/best_step": now.best_step})
    return TrainedModel(
        path=out,
        fingerprint=fingerprint,
        run_id=run.run_id,
        base=model.base if model.revision is None else f"{model.base}@{model.revision}",
        model=model,
        train=training.params,
        label_names=training.network.label_names,
        best_step=now.best_step,
        optimizer_steps=now.step,
        metric=training.trial.metric,
        scores=now.best_scores,
        settings=settings,
        padding_free=training.free is not None,
        device=training.network.place.device.type,
        precision={torch.float32: "fp32", torch.bfloat16: "bf16"}[training.network.place.dtype],
        resumed_from_step=resumed_from,
        **facts,
    )


def check_score(scores: dict[str, float], metric: str) -> None:
    """Raise DivergedError where no validation gave a number for `metric`."""
    if math.isnan(scores[metric]):
        found, do = f"{metric} not a number in every validation", "Lower train.learning_rate, or look at the rows."
        raise DivergedError("validation", f"a number for {metric}", found, do)


def _write_model(training: TrainingState, predictions: list[Prediction]) -> str:
    """`model/` in Hugging Face's format, and the validation predictions beside it. Returns their fingerprint.

    Only the first rank writes; the others know no fingerprint.
    """
    state = full_state_dict(training.network.model.state_dict()) if training.network.place.sharded else None
    if not training.ranks.first:
        return ""
    training.network.model.save_pretrained(training.out / "model", state_dict=state)
    training.network.base.tokenizer.save_pretrained(training.out / "model")
    frame = pd.DataFrame(predictions)
    frame.insert(0, "row_id", training.validation_rows["row_id"])
    frame.insert(1, "reference", pd.Series(list(training.network.family.reference(training.validation_rows))))
    write_rows(frame, training.out / "validation.parquet")
    return fingerprint_files(training.out, ["model", "validation.parquet"])


def _interrupted(training: TrainingState, number: int) -> InterruptedByUser:
    found = f"{signal.Signals(number).name} at step {training.progress.step} of {training.steps}"
    return InterruptedByUser(
        "training", "to finish", found, "A checkpoint is saved; the same command continues from it."
    )


def _progress_text(training: TrainingState) -> str:
    now = training.progress
    rate = f"{now.tokens / max(1e-9, now.train_seconds):,.0f} tokens/s"
    best = now.best_scores.get(training.trial.metric)
    return rate if best is None else f"{rate} · best validation {training.trial.metric} {best:.4f}"


def _step_metrics(step: Step, ranks: Ranks) -> dict[str, float]:
    metrics: dict[str, float] = {
        "train/loss": step.loss,
        "train/grad_norm": step.grad_norm,
        "train/learning_rate": step.learning_rate,
        "train/tokens_per_second": step.tokens / step.seconds,
        "train/epoch": step.epoch,
    }
    if ranks.count > 1:
        metrics |= zip(("train/least_rank_tokens", "train/most_rank_tokens"), step.rank_tokens, strict=True)
    return metrics
