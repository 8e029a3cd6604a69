"""The first part of a trial: trained to a rung, scored, and left where the rest of the training continues.

A rung works in the folder in which the whole trial is trained. So going on to the next rung, or to the end, is what
resuming after an interruption is, and gives the same bits as a training that never stopped.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from apf_tasks.artifacts import Rung
from apf_tasks.cache import fingerprints, store
from apf_tasks.errors import DivergedError
from apf_tasks.inputs import TrainingInputs
from apf_tasks.runtime.launch import run_on_ranks
from apf_tasks.tracking import run_logger
from apf_tasks.training.state import TrainingState, prepare_training
from apf_tasks.training.train import check_score, checkpoints, recording_contexts, run_until, trial_run, validate_now


def train_rung(out: Path, folder: Path, key: str, trial: TrainingInputs, until: int) -> Rung:
    """Train to step `until` of a trial and look at its validation score.

    `folder` is the one in which the stage call `key` trains the whole trial; the caller holds its lock.

    A loss that is no number ends the trial: that is its result, and no search has to try it again. Raises
    InterruptedByUser (after a checkpoint) and ModelError.
    """
    reached = run_on_ranks(trial.runtime, _reach, folder, out, trial, until, within=recording_contexts())
    said = {"trial": key, "step": until, "score": reached.score, "failure": reached.failure}
    (out / "rung.json").write_text(json.dumps(said))
    return Rung(
        path=out,
        fingerprint=fingerprints.digest([key, until, reached.score]),
        model=trial.model,
        train=trial.params,
        metric=trial.metric,
        **reached._asdict(),
    )


class RungOutcome(NamedTuple):
    """Where a trial stands at a rung."""

    run_id: str
    step: int
    steps: int
    score: float | None
    failure: str
    """Why there is no score."""
    train_seconds: float


def _reach(folder: Path, otherwise: Path, trial: TrainingInputs, until: int) -> RungOutcome:
    """Train in `folder`, or from the start `otherwise` when that is further already; look."""
    training = prepare_training(folder, trial)
    if training.progress.step > until:  # it was trained further before anybody asked for this rung
        training = prepare_training(otherwise, trial)
    score, failure, run_id = _train_and_score(training, until)
    seconds = round(training.progress.train_seconds, 2)
    return RungOutcome(run_id, training.progress.step, training.steps, score, failure, seconds)


def _train_and_score(training: TrainingState, until: int) -> tuple[float | None, str, str]:
    """Train, look, and leave a checkpoint. Returns the score, or why there is none, and the MLflow run."""
    try:
        with trial_run(training) as run:
            run_until(training, run, until)
            score = _best_so_far(training, run)
            with checkpoints(training) as kept:
                kept.save_async(training.progress)
            if training.ranks.first:
                (training.out / store.CHECKPOINT_DIR / store.PAUSED).write_text(f"step {training.progress.step}")
            return score, "", run.run_id
    except DivergedError as error:
        return None, f"{error.where}: {error.found}", run.run_id


def _best_so_far(training: TrainingState, run: run_logger.TrialRun) -> float:
    """The better of the score now and the best of the scheduled validations."""
    sign, metric = training.network.family.sign(training.trial.metric), training.trial.metric
    found = [scores for scores in (validate_now(training, run), training.progress.best_scores) if scores]
    numbers = [sign * scores[metric] for scores in found if not math.isnan(scores[metric])]
    if not numbers:
        check_score(found[0], metric)
    return sign * max(numbers)
