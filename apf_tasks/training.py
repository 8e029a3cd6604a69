"""The train stage: one trial from a pretrained model to its best weights, resumable at any moment."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from apf_tasks import tracking
from apf_tasks.artifacts import TokenizedSplit, TrainedModel
from apf_tasks.batching import Examples
from apf_tasks.checkpoints import CHECKPOINT, Progress, load_checkpoint, save_checkpoint
from apf_tasks.errors import Interrupted
from apf_tasks.families import Prediction
from apf_tasks.frozen import dotted
from apf_tasks.loop import Step, packs_alike, train_steps
from apf_tasks.model_sources import model_folder
from apf_tasks.network import Network, load_network, predict_and_tune, score, scores_of
from apf_tasks.params import FamilyParams, ModelParams, RuntimeParams, TrainParams
from apf_tasks.progress import progress as show_progress
from apf_tasks.rows import read_rows, write_rows
from apf_tasks.runtime import peak_memory_gib, reset_peak_memory, seed_everything, stop_signals
from apf_tasks.schedules import evaluation_interval, total_steps
from apf_tasks.stage import current_label
from apf_tasks.store import fingerprint_files
from apf_tasks.weights import check_moved, drop_best_except, load_best, parameter_digests, save_best

logger = logging.getLogger("apf")


@dataclass
class Training:
    """One trial under way: what the loop needs, and where it stands."""

    out: Path
    network: Network
    metric: str
    params: TrainParams
    runtime: RuntimeParams
    optimizer: torch.optim.Optimizer
    examples: Examples
    packed: bool
    constants: dict[str, torch.Tensor]
    validation: Examples
    validation_rows: pd.DataFrame
    progress: Progress
    best: tuple[list[Prediction], dict[str, float]] | None = None
    """Predictions and settings of the best validation so far; None after a resumption, until there is a better one."""
    validated: tuple[int, dict[str, float]] = (0, {})
    """Step and scores of the last validation since the start of this process."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return total_steps(len(self.examples), self.params)

    @property
    def evaluate_every(self) -> int:
        """Optimizer steps between validations."""
        return evaluation_interval(len(self.examples), self.params)


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
    training = set_up(out, train, validation, model, family, params, runtime, metric)
    resumed_from = training.progress.step or None
    with trial_run(training, model, family) as run:
        run_until(training, run, training.steps)
        return _finish(training, run, model, resumed_from)


@contextmanager
def trial_run(training: Training, model: ModelParams, family: FamilyParams) -> Iterator[tracking.TrialRun]:
    """The MLflow run of the trial; says where the trial continues."""
    resumed_from = training.progress.step or None
    if resumed_from:
        logger.info("           continues from the checkpoint at step %d of %d", resumed_from, training.steps)
    facts = {"model.base": model.base, "model.max_tokens": model.max_tokens, "family.name": family.name}
    facts |= dict(dotted(training.params.model_dump(mode="json"), "train."))
    with tracking.trial_run(training.out, current_label(), facts, resumed_from) as run:
        yield run


def set_up(
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
    seed_everything(params.seed)
    network = load_network(model_folder(model), model, family, train.label_names, runtime)
    network.model.requires_grad_(True)
    examples = Examples.of(train)
    packed = network.family.packs and packs_alike(network, examples)
    reset_peak_memory(network.place.device)
    optimizer = params.optimizer.build(network.model, params.learning_rate, params.weight_decay)
    seed_everything(params.seed)  # dropout starts alike, however many weights were drawn
    progress = load_checkpoint(out, network.model, optimizer)
    return Training(
        out=out,
        network=network,
        metric=metric,
        params=params,
        runtime=runtime,
        optimizer=optimizer,
        examples=examples,
        packed=packed,
        constants=_constants(network, train),
        validation=Examples.of(validation),
        validation_rows=read_rows(validation.path / "rows.parquet"),
        progress=progress or Progress(initial_digests=parameter_digests(network.model)),
    )


def _constants(network: Network, train: TokenizedSplit) -> dict[str, torch.Tensor]:
    """What the family wants every training batch to carry."""
    if network.family.constants is None:
        return {}
    found = network.family.constants(read_rows(train.path / "rows.parquet"), network.label_names)
    return {name: tensor.to(network.place.device) for name, tensor in found.items()}


def run_until(training: Training, run: tracking.TrialRun, until: int) -> None:
    """Train to step `until` of the whole, or to the end of patience. What comes after does not change what is done."""
    if training.progress.stopped or training.progress.step >= until:
        return
    saved = time.monotonic()
    network, now = training.network, training.progress
    loop = train_steps(
        network, training.optimizer, training.examples, training.params, now.step, training.packed, training.constants
    )
    with stop_signals() as stopping, show_progress(f"train {current_label()}".strip(), until, "steps") as advance:
        for step in loop:
            _advance(training, step)
            run.log(step.step, _step_metrics(step))
            if step.step % training.evaluate_every == 0 or step.step == training.steps:
                run.log(step.step, {f"validation/{k}": v for k, v in _validate(training).items()})
            advance(step.step, _note(training))
            due = time.monotonic() - saved > training.runtime.checkpoint_minutes * 60
            if due or stopping or training.progress.stopped:
                run.flush()  # points up to the checkpoint first: a resumed run repeats only later ones
                save_checkpoint(training.out, training.network.model, training.optimizer, training.progress)
                drop_best_except(training.out, training.progress.best_step)
                saved = time.monotonic()
            if stopping:
                raise _interrupted(training, stopping[0])
            if training.progress.stopped:
                logger.info("           stops early: no better score in %d validations", training.params.patience)
                break
            if step.step == until:
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
    judged = predict_and_tune(training.network, training.validation, training.validation_rows)
    scores = _scores(training, judged[0])
    metric, now = training.metric, training.progress
    training.validated = (now.step, scores)
    sign = training.network.family.sign(metric)
    if not now.best_scores or sign * scores[metric] > sign * now.best_scores[metric]:
        save_best(training.out, training.network.model, now.step)
        training.best = judged
        update: dict[str, Any] = {"best_step": now.step, "best_scores": scores, "validations_without_gain": 0}
    else:
        waited = now.validations_without_gain + 1
        patience = training.params.patience
        update = {"validations_without_gain": waited, "stopped": patience is not None and waited >= patience}
    training.progress = now.model_copy(update=update)
    return scores


def look(training: Training, run: tracking.TrialRun) -> dict[str, float]:
    """Validation scores of the weights as they are; whether these are the best so far is not asked."""
    step, scores = training.validated
    if step != training.progress.step:
        judged = predict_and_tune(training.network, training.validation, training.validation_rows)
        scores = _scores(training, judged[0])
        run.log(training.progress.step, {f"validation/{name}": value for name, value in scores.items()})
    return scores


def _scores(training: Training, predictions: list[Prediction]) -> dict[str, float]:
    family = training.network.family
    references = family.reference(training.validation_rows)
    return dict(scores_of(family, score(family, references, predictions, training.network.label_names)))


def _finish(training: Training, run: tracking.TrialRun, model: ModelParams, resumed_from: int | None) -> TrainedModel:
    """Save the last state, go back to the best weights, check that all of them moved, and write the model."""
    network, out = training.network.model, training.out
    save_checkpoint(out, network, training.optimizer, training.progress)
    drop_best_except(out, training.progress.best_step)
    now = training.progress
    load_best(out, network, now.best_step)
    changed = check_moved(network, now.initial_digests)
    judged = training.best or predict_and_tune(training.network, training.validation, training.validation_rows)
    predictions, settings = judged
    _write_model(training, predictions)
    drop_best_except(out, None)
    facts: dict[str, Any] = {
        "parameters": network.num_parameters(),
        "trainable_parameters": network.num_parameters(only_trainable=True),
        "parameters_changed": changed,
        "peak_memory_gib": round(peak_memory_gib(training.network.place.device), 3),
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
        model=model,
        train=training.params,
        label_names=training.network.label_names,
        best_step=now.best_step,
        optimizer_steps=now.step,
        metric=training.metric,
        scores=now.best_scores,
        settings=settings,
        packed=training.packed,
        device=training.network.place.device.type,
        precision={torch.float32: "fp32", torch.bfloat16: "bf16"}[training.network.place.dtype],
        resumed_from_step=resumed_from,
        **facts,
    )


def _write_model(training: Training, predictions: list[Prediction]) -> None:
    """`model/` in Hugging Face's format, and the validation predictions beside it."""
    training.network.model.save_pretrained(training.out / "model")
    training.network.base.tokenizer.save_pretrained(training.out / "model")
    frame = pd.DataFrame(predictions)
    frame.insert(0, "row_id", training.validation_rows["row_id"])
    frame.insert(1, "reference", pd.Series(list(training.network.family.reference(training.validation_rows))))
    write_rows(frame, training.out / "validation.parquet")


def _interrupted(training: Training, number: int) -> Interrupted:
    found = f"{signal.Signals(number).name} at step {training.progress.step} of {training.steps}"
    return Interrupted("training", "to finish", found, f"{CHECKPOINT} is saved; the same command continues from it.")


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
