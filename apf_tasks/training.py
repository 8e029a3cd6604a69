"""The train stage: one trial from a pretrained model to its best weights, resumable at any moment."""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from apf_tasks import tracking
from apf_tasks.artifacts import TokenizedSplit, TrainedModel
from apf_tasks.batching import Examples
from apf_tasks.checkpoints import CHECKPOINT, Progress, load_checkpoint, save_checkpoint
from apf_tasks.errors import Interrupted
from apf_tasks.families import Family, get_family
from apf_tasks.frozen import dotted
from apf_tasks.loop import Place, Step, predict, steps_per_epoch, total_steps, train_steps
from apf_tasks.params import FamilyParams, ModelParams, RuntimeParams, TrainParams
from apf_tasks.pretrained import load_tokenizer, pad_id
from apf_tasks.progress import progress as show_progress
from apf_tasks.runtime import (
    choose_device,
    choose_precision,
    peak_memory_gib,
    reset_peak_memory,
    seed_everything,
    stop_signals,
)
from apf_tasks.sources import model_folder
from apf_tasks.stage import current_label
from apf_tasks.store import fingerprint_files
from apf_tasks.weights import check_moved, drop_best_except, load_best, parameter_digests, save_best

logger = logging.getLogger("apf")


@dataclass
class Training:
    """One trial under way: what the loop needs, and where it stands."""

    out: Path
    family: Family
    metric: str
    params: TrainParams
    runtime: RuntimeParams
    place: Place
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    optimizer: torch.optim.Optimizer
    examples: Examples
    validation: Examples
    validation_rows: pd.DataFrame
    label_names: tuple[str, ...]
    progress: Progress

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return total_steps(len(self.examples), self.params)

    @property
    def evaluate_every(self) -> int:
        """Optimizer steps between validations."""
        per_epoch = steps_per_epoch(len(self.examples), self.params.batch_size)
        return self.params.evaluate_every_steps or max(1, round(self.params.evaluate_every_epochs * per_epoch))


def train_model(
    out: Path,
    train: TokenizedSplit,
    validation: TokenizedSplit,
    model: ModelParams,
    family: FamilyParams,
    params: TrainParams,
    runtime: RuntimeParams,
    metric: str,
) -> TrainedModel:
    """Update every parameter of the base on `train`; keep the weights that score best by `metric` on `validation`.

    Continues from the checkpoint that an interrupted predecessor left under `out`. Raises Diverged, Interrupted (after
    a checkpoint) and ModelError.
    """
    training = _set_up(out, train, validation, model, family, params, runtime, metric)
    resumed_from = training.progress.step or None
    if resumed_from:
        logger.info("           continues from the checkpoint at step %d of %d", resumed_from, training.steps)
    facts = {"model.base": model.base, "model.max_tokens": model.max_tokens, "family.name": family.name}
    with tracking.trial_run(
        out, current_label(), facts | dict(dotted(params.model_dump(mode="json"), "train.")), resumed_from
    ) as run:
        _run(training, run)
        return _finish(training, run, model, resumed_from)


def _set_up(
    out: Path,
    train: TokenizedSplit,
    validation: TokenizedSplit,
    model: ModelParams,
    family: FamilyParams,
    params: TrainParams,
    runtime: RuntimeParams,
    metric: str,
) -> Training:
    """Load everything, seeded; go to the checkpoint if there is one."""
    functions = get_family(family.name)
    device = choose_device(runtime)
    folder = model_folder(model)
    seed_everything(params.seed)
    tokenizer = load_tokenizer(folder, model)
    network = functions.load_model(folder, model, family, train.label_names).to(device)  # type: ignore[arg-type]
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    network.requires_grad_(True)
    reset_peak_memory(device)
    optimizer = params.optimizer.build(network, params.learning_rate, params.weight_decay)
    seed_everything(params.seed)  # dropout starts alike, however many weights were drawn
    progress = load_checkpoint(out, network, optimizer) or Progress(initial_digests=parameter_digests(network))
    return Training(
        out=out,
        family=functions,
        metric=metric,
        params=params,
        runtime=runtime,
        place=Place(device, choose_precision(runtime, device)),
        model=network,
        tokenizer=tokenizer,
        optimizer=optimizer,
        examples=Examples.of(train),
        validation=Examples.of(validation),
        validation_rows=pd.read_parquet(validation.path / "rows.parquet"),
        label_names=train.label_names,
        progress=progress,
    )


def _run(training: Training, run: tracking.TrialRun) -> None:
    """Train to the last step or to the end of patience."""
    if training.progress.stopped or training.progress.step >= training.steps:
        return
    saved = time.monotonic()
    p, place = training.params, training.place
    loop = train_steps(
        training.model, training.optimizer, training.examples, training.family, p, place, pad_id(training.tokenizer),
        training.progress.step,
    )  # fmt: skip
    with stop_signals() as stopping, show_progress(_title(), training.steps, "steps") as advance:
        for step in loop:
            _advance(training, step)
            run.log(step.step, _step_metrics(step))
            if step.step % training.evaluate_every == 0 or step.step == training.steps:
                run.log(step.step, {f"validation/{k}": v for k, v in _validate(training).items()})
            advance(step.step, _note(training))
            due = time.monotonic() - saved > training.runtime.checkpoint_minutes * 60
            if due or stopping or training.progress.stopped:
                run.flush()  # points up to the checkpoint first: a resumed run repeats only later ones
                save_checkpoint(training.out, training.model, training.optimizer, training.progress)
                drop_best_except(training.out, training.progress.best_step)
                saved = time.monotonic()
            if stopping:
                raise _interrupted(training, stopping[0])
            if training.progress.stopped:
                logger.info("           stops early: no better score in %d validations", p.patience)
                break


def _advance(training: Training, step: Step) -> None:
    now = training.progress
    training.progress = now.model_copy(
        update={
            "step": step.step,
            "train_seconds": now.train_seconds + step.seconds,
            "tokens": now.tokens + step.tokens,
            "padded_tokens": now.padded_tokens + step.padded_tokens,
        }
    )


def _validate(training: Training) -> dict[str, float]:
    """Score on validation; keep the weights when they are the best so far."""
    predictions = predict(
        training.model,
        training.validation,
        training.family,
        training.label_names,
        training.place,
        pad_id(training.tokenizer),
    )
    scores = _scores(training, predictions)
    metric = training.metric
    now = training.progress
    if not now.best_scores or scores[metric] > now.best_scores[metric]:
        save_best(training.out, training.model, now.step)
        update: dict[str, Any] = {"best_step": now.step, "best_scores": scores, "validations_without_gain": 0}
    else:
        waited = now.validations_without_gain + 1
        patience = training.params.patience
        update = {"validations_without_gain": waited, "stopped": patience is not None and waited >= patience}
    training.progress = now.model_copy(update=update)
    return scores


def _scores(training: Training, predictions: list[dict[str, Any]]) -> dict[str, float]:
    references = training.family.reference(training.validation_rows)
    found = [p["prediction"] for p in predictions]
    sums = training.family.statistics(references, found, training.label_names).sum(axis=0)
    return {name: float(score) for name, score in training.family.scores(sums).items()}


def _finish(training: Training, run: tracking.TrialRun, model: ModelParams, resumed_from: int | None) -> TrainedModel:
    """Save the last state, go back to the best weights, check that all of them moved, and write the model."""
    save_checkpoint(training.out, training.model, training.optimizer, training.progress)
    drop_best_except(training.out, training.progress.best_step)
    now, network, out = training.progress, training.model, training.out
    load_best(out, network, now.best_step)
    changed = check_moved(network, now.initial_digests)
    predictions = predict(
        network, training.validation, training.family, training.label_names, training.place, pad_id(training.tokenizer)
    )
    _write_model(training, predictions)
    drop_best_except(out, None)
    facts: dict[str, Any] = {
        "parameters": network.num_parameters(),
        "trainable_parameters": network.num_parameters(only_trainable=True),
        "parameters_changed": changed,
        "peak_memory_gib": round(peak_memory_gib(training.place.device), 3),
        "tokens_per_second": round(now.tokens / max(1e-9, now.train_seconds), 1),
        "padding_fraction": round(1 - now.tokens / max(1, now.padded_tokens), 4),
        "train_seconds": round(now.train_seconds, 2),
    }
    run.log(now.step, {f"system/{name}": value for name, value in facts.items()})
    run.log(now.step, {"validation/best_step": now.best_step})
    return TrainedModel(
        path=out,
        fingerprint=fingerprint_files(out, ["model", "validation.parquet"]),
        run_id=run.run_id,
        base=model.base if model.revision is None else f"{model.base}@{model.revision}",
        train=training.params,
        label_names=training.label_names,
        best_step=now.best_step,
        optimizer_steps=now.step,
        metric=training.metric,
        scores=now.best_scores,
        device=training.place.device.type,
        precision={torch.float32: "fp32", torch.bfloat16: "bf16"}[training.place.dtype],
        resumed_from_step=resumed_from,
        **facts,
    )


def _write_model(training: Training, predictions: list[dict[str, Any]]) -> None:
    """`model/` in Hugging Face's format, and the validation predictions beside it."""
    training.model.save_pretrained(training.out / "model")
    training.tokenizer.save_pretrained(training.out / "model")
    frame = pd.DataFrame(predictions)
    frame.insert(0, "row_id", training.validation_rows["row_id"])
    frame.insert(1, "reference", training.family.reference(training.validation_rows))
    frame.to_parquet(training.out / "validation.parquet", index=False)


def _interrupted(training: Training, number: int) -> Interrupted:
    found = f"{signal.Signals(number).name} at step {training.progress.step} of {training.steps}"
    return Interrupted("training", "to finish", found, f"{CHECKPOINT} is saved; the same command continues from it.")


def _title() -> str:
    return f"train {current_label()}".strip()


def _note(training: Training) -> str:
    now = training.progress
    rate = f"{now.tokens / max(1e-9, now.train_seconds):,.0f} tokens/s"
    best = now.best_scores.get(training.metric)
    return rate if best is None else f"{rate} · best validation {training.metric} {best:.4f}"


def _step_metrics(step: Step) -> dict[str, float]:
    return {
        "train/loss": step.loss,
        "train/grad_norm": step.grad_norm,
        "train/learning_rate": step.learning_rate,
        "train/tokens_per_second": step.tokens / step.seconds,
        "train/epoch": step.epoch,
    }
