"""The first part of a trial: trained to a rung, scored, and left where the rest of the training continues.

A rung works in the folder in which the whole trial is trained. So going on to the next rung, or to the end, is what
resuming after an interruption is, and gives the same bits as a training that never stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from apf_tasks.artifacts import Rung
from apf_tasks.cache import fingerprints, store
from apf_tasks.errors import Diverged
from apf_tasks.runtime.launch import on_devices
from apf_tasks.tracking import run_logger as tracking
from apf_tasks.training.state import Training, Trial, set_up
from apf_tasks.training.train import checkpoints, look, recorded_here, run_until, trial_run


def train_rung(out: Path, folder: Path, key: str, trial: Trial, until: int) -> Rung:
    """Train to step `until` of a trial and look at its validation score.

    `folder` is the one in which the stage call `key` trains the whole trial; the caller holds its lock.

    A loss that is no number ends the trial: that is its result, and no search has to try it again. Raises Interrupted
    (after a checkpoint) and ModelError.
    """
    reached = on_devices(trial.runtime, _reach, folder, out, trial, until, within=recorded_here())
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


class Reached(NamedTuple):
    """Where a trial stands at a rung."""

    run_id: str
    step: int
    steps: int
    score: float | None
    failure: str
    """Why there is no score."""
    train_seconds: float


def _reach(folder: Path, otherwise: Path, trial: Trial, until: int) -> Reached:
    """Train in `folder`, or from the start `otherwise` when that is further already; look."""
    training = set_up(folder, trial)
    if training.progress.step > until:  # it was trained further before anybody asked for this rung
        training = set_up(otherwise, trial)
    score, failure, run_id = _look_at(training, until)
    seconds = round(training.progress.train_seconds, 2)
    return Reached(run_id, training.progress.step, training.steps, score, failure, seconds)


def _look_at(training: Training, until: int) -> tuple[float | None, str, str]:
    """Train, look, and leave a checkpoint. Returns the score, or why there is none, and the MLflow run."""
    try:
        with trial_run(training) as run:
            run_until(training, run, until)
            score = _best_so_far(training, run)
            with checkpoints(training) as kept:
                kept.begin(training.progress)
            if training.ranks.first:
                (training.out / store.WORK / store.PAUSED).write_text(f"step {training.progress.step}")
            return score, "", run.run_id
    except Diverged as error:
        return None, f"{error.where}: {error.found}", run.run_id


def _best_so_far(training: Training, run: tracking.TrialRun) -> float:
    """The better of the score now and the best of the scheduled validations."""
    sign, metric = training.network.family.sign(training.trial.metric), training.trial.metric
    found = (look(training, run), training.progress.best_scores)
    return sign * max(sign * scores[metric] for scores in found if scores)
