"""The choice of the best candidate on validation, with its uncertainty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from apf_tasks.artifacts import Candidate, Selection, TrainedModel
from apf_tasks.families import Family, get_family
from apf_tasks.frozen import dotted
from apf_tasks.metrics.bootstrap import bootstrap, paired_bootstrap
from apf_tasks.params import FamilyParams, TestParams
from apf_tasks.rows import read_rows
from apf_tasks.store import digest


def select(out: Path, models: tuple[TrainedModel, ...], family: FamilyParams, intervals: TestParams) -> Selection:
    """The model with the best validation score; of equal ones that with fewer steps, then the first in the search."""
    functions = get_family(family)
    metric = models[0].metric
    counts = [_statistics(model, functions) for model in models]
    differing = _differing(models)
    sign = functions.sign(metric)
    order = sorted(range(len(models)), key=lambda i: (-sign * models[i].scores[metric], models[i].optimizer_steps, i))
    candidates = []
    for i in order:
        model = models[i]
        ranges = bootstrap(counts[i], functions.scores, intervals.resamples, intervals.seed, intervals.confidence)
        candidates.append(
            Candidate(
                trial={name: value for name, value in _flat(model).items() if name in differing},
                run_id=model.run_id,
                model_fingerprint=model.fingerprint,
                score=model.scores[metric],
                interval=ranges[metric],
                best_step=model.best_step,
            )
        )
    tie_break = _why(models, order, counts, functions, metric, intervals)
    listing = [candidate.model_dump(mode="json") for candidate in candidates]
    (out / "candidates.json").write_text(
        json.dumps({"metric": metric, "why": tie_break, "candidates": listing}, indent=1)
    )
    return Selection(
        path=out,
        # the choice alone: other losers beside the same winner repeat neither its test nor its registration
        fingerprint=digest([models[order[0]].fingerprint, metric]),
        chosen=models[order[0]],
        metric=metric,
        compared=len(models),
        candidates=tuple(candidates[:3]),
        tie_break=tie_break,
    )


def _statistics(model: TrainedModel, family: Family) -> np.ndarray:
    """Per-row counts of the model's validation predictions, (N, K)."""
    rows = read_rows(model.path / "validation.parquet")
    return family.statistics(rows["reference"].tolist(), rows["prediction"].tolist(), model.label_names)


def _flat(model: TrainedModel) -> dict[str, Any]:
    return dict(dotted(model.train.model_dump(mode="json"), "train."))


def _differing(models: tuple[TrainedModel, ...]) -> set[str]:
    """The dotted names whose values are not the same for all candidates."""
    flat = [_flat(model) for model in models]
    return {name for name in flat[0] if len({str(values[name]) for values in flat}) > 1}


def _why(
    models: tuple[TrainedModel, ...],
    order: list[int],
    counts: list[np.ndarray],
    family: Family,
    metric: str,
    intervals: TestParams,
) -> str:
    """One sentence on how sure the choice is."""
    if len(order) == 1:
        return "the only candidate"
    first, second = order[0], order[1]
    if models[first].scores[metric] == models[second].scores[metric]:
        rule = (
            "fewer steps" if models[first].optimizer_steps < models[second].optimizer_steps else "first in the search"
        )
        return f"best of {len(order)}, equal with the runner-up; chosen because {rule}"
    difference = paired_bootstrap(
        counts[first], counts[second], family.scores, metric, intervals.resamples, intervals.seed, intervals.confidence
    )
    if difference.better(family.sign(metric)):
        return f"best of {len(order)}, reliably ahead of the runner-up by {difference}"
    return f"best of {len(order)}, not reliably better than the runner-up ({difference}); chosen for the better score"
