"""The first part of a trial: trained to a rung, scored, and left where the rest of the training continues.

A rung works in the folder in which the whole trial is trained. So going on to the next rung, or to the end, is what
resuming after an interruption is, and gives the same bits as a training that never stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

from apf_tasks import store, tracking
from apf_tasks.artifacts import Rung, TokenizedSplit
from apf_tasks.checkpoints import save_checkpoint
from apf_tasks.errors import Diverged
from apf_tasks.params import FamilyParams, ModelParams, RuntimeParams, TrainParams
from apf_tasks.training import Training, look, run_until, set_up, trial_run
from apf_tasks.weights import drop_best_except


def train_rung(
    out: Path,
    train: TokenizedSplit,
    validation: TokenizedSplit,
    model: ModelParams,
    family: FamilyParams,
    params: TrainParams,
    runtime: RuntimeParams,
    metric: str,
    until: int,
) -> Rung:
    """Train to step `until` of a trial and look at its validation score.

    A loss that is no number ends the trial: that is its result, and no search has to try it again. Raises Interrupted
    (after a checkpoint) and ModelError.
    """
    from apf_tasks.stages import train_model

    arguments = (train, validation, model, family, params, runtime, metric)
    key = train_model.record(*arguments).key
    with store.hold(key):
        training = set_up(store.prepare(train_model.name, key, train_model.resumable), *arguments)
        if training.progress.step > until:  # it was trained further before anybody asked for this rung
            training = set_up(out, *arguments)
        score, failure, run_id = _reach(training, until, model, family)
    (out / "rung.json").write_text(json.dumps({"trial": key, "step": until, "score": score, "failure": failure}))
    return Rung(
        path=out,
        fingerprint=store.digest([key, until, score]),
        run_id=run_id,
        model=model,
        train=params,
        step=training.progress.step,
        steps=training.steps,
        metric=metric,
        score=score,
        failure=failure,
        train_seconds=round(training.progress.train_seconds, 2),
    )


def _reach(training: Training, until: int, model: ModelParams, family: FamilyParams) -> tuple[float | None, str, str]:
    """Train, look, and leave a checkpoint. Returns the score, or why there is none, and the MLflow run."""
    try:
        with trial_run(training, model, family) as run:
            run_until(training, run, until)
            score = _best_so_far(training, run)
            save_checkpoint(training.out, training.network.model, training.optimizer, training.progress)
            drop_best_except(training.out, training.progress.best_step)
            return score, "", run.run_id
    except Diverged as error:
        return None, f"{error.where}: {error.found}", run.run_id


def _best_so_far(training: Training, run: tracking.TrialRun) -> float:
    """The better of the score now and the best of the scheduled validations."""
    sign, metric = training.network.family.sign(training.metric), training.metric
    found = (look(training, run), training.progress.best_scores)
    return sign * max(sign * scores[metric] for scores in found if scores)
