"""The choice of the best candidate on validation, with its uncertainty."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apf_tasks.artifacts import Candidate, Interval, Selection, TrainedModel
from apf_tasks.cache.fingerprints import digest
from apf_tasks.data.rows import read_rows
from apf_tasks.evaluation.metrics.bootstrap import paired_bootstrap, percentiles, resampled_scores
from apf_tasks.family import Family, get_family
from apf_tasks.params.base import dotted
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.search import EvaluationParams, SelectParams


def select(
    out: Path,
    models: tuple[TrainedModel, ...],
    family: FamilyParams,
    settings: SelectParams,
    intervals: EvaluationParams,
    searched: tuple[str, ...],
    compared: int,
) -> Selection:
    """The trial with the best mean score over its seeds, or by `settings.rule`; of its models the best one.

    Trials differ in the dotted names `searched`; `compared` of them were looked at on validation to get these models.
    """
    functions = get_family(family)
    metric = models[0].metric
    sign = functions.sign(metric)
    trials = [_score_trial(group, functions, metric, intervals) for group in _by_trial(models)]
    order = sorted(range(len(trials)), key=lambda i: (-sign * trials[i].score, trials[i].cost, i))
    best = trials[order[0]]
    if settings.rule == "one_standard_error":
        near = [i for i in order if sign * (best.score - trials[i].score) <= best.standard_error]
        cheapest = min(near, key=lambda i: (trials[i].cost, order.index(i)))
        order = [cheapest, *(i for i in order if i != cheapest)]
    ranked = [trials[i] for i in order]
    why = _why(ranked, best, functions, metric, settings, intervals, compared)
    candidates = [trial.candidate(searched) for trial in ranked]
    listing = [candidate.model_dump(mode="json") for candidate in candidates]
    said = {"metric": metric, "why": why, "compared": compared, "rule": settings.rule, "candidates": listing}
    (out / "candidates.json").write_text(json.dumps(said, indent=1))
    chosen = ranked[0].model
    return Selection(
        path=out,
        # the choice alone: other losers beside the same winner repeat neither its test nor its registration
        fingerprint=digest([chosen.fingerprint, metric]),
        chosen=chosen,
        metric=metric,
        compared=compared,
        candidates=tuple(candidates[:3]),
        tie_break=why,
    )


@dataclass(frozen=True)
class ScoredTrial:
    """One combination of parameters with its validation scores."""

    model: TrainedModel
    """Of its seeds the best one."""
    score: float
    """Mean over the seeds."""
    seeds: tuple[float, ...]
    interval: Interval
    standard_error: float
    """Of the mean: by the seeds where there are three or more, else by resampling the validation rows."""
    counts: np.ndarray
    """Per-row statistics of the model, (N, K)."""

    @property
    def cost(self) -> float:
        """Parameters times examples learned from: what training costs, whatever the machine."""
        return float(self.model.parameters) * self.model.optimizer_steps * self.model.train.batch_size

    def candidate(self, searched: tuple[str, ...]) -> Candidate:
        """As the selection lists it."""
        values = _flat(self.model).items()
        return Candidate(
            trial={n: v for n, v in values if any(n == name or n.startswith(f"{name}.") for name in searched)},
            run_id=self.model.run_id,
            model_fingerprint=self.model.fingerprint,
            score=self.score,
            seeds=self.seeds,
            interval=self.interval,
            best_step=self.model.best_step,
        )


def _score_trial(group: list[TrainedModel], family: Family, metric: str, intervals: EvaluationParams) -> ScoredTrial:
    scores = [model.scores[metric] for model in group]
    best = max(group, key=lambda model: family.sign(metric) * model.scores[metric])
    counts = validation_statistics(best, family)
    resampled = resampled_scores(counts, family.scores, intervals.resamples, intervals.seed)[metric]
    by_seeds = len(scores) > 2
    error = np.std(scores, ddof=1) / np.sqrt(len(scores)) if by_seeds else np.std(resampled)
    return ScoredTrial(
        model=best,
        score=float(np.mean(scores)),
        seeds=tuple(scores),
        interval=percentiles(resampled, intervals.confidence),
        standard_error=float(error),
        counts=counts,
    )


def _by_trial(models: tuple[TrainedModel, ...]) -> list[list[TrainedModel]]:
    """Models that differ in their seed alone belong together."""
    groups: dict[str, list[TrainedModel]] = {}
    for model in models:
        train = model.train.model_copy(update={"seed": 0})
        groups.setdefault(model.model.model_dump_json() + train.model_dump_json(), []).append(model)
    return list(groups.values())


def validation_statistics(model: TrainedModel, family: Family) -> np.ndarray:
    """Per-row counts of the model's validation predictions, (N, K)."""
    rows = read_rows(model.path / "validation.parquet")
    return family.statistics(rows["reference"].tolist(), rows["prediction"].tolist(), model.label_names)


def _flat(model: TrainedModel) -> dict[str, Any]:
    sections = {"model.base": model.base, "model.max_tokens": model.model.max_tokens}
    return sections | dict(dotted(model.train.model_dump(mode="json"), "train."))


def _why(
    ranked: list[ScoredTrial],
    best: ScoredTrial,
    family: Family,
    metric: str,
    settings: SelectParams,
    intervals: EvaluationParams,
    compared: int,
) -> str:
    """One sentence on how sure the choice is."""
    of = f"best of {compared}" + (f", {len(ranked)} of them trained to the end" if len(ranked) < compared else "")
    if len(ranked) == 1:
        return of if compared > 1 else "the only candidate"
    first, second = ranked[:2]
    if first is not best:
        return (
            f"{of}; the cheapest within one standard error ({best.standard_error:.4f}) of the best ({best.score:.4f})"
        )
    if first.score == second.score:
        rule = "cheaper to train" if first.cost < second.cost else "first in the search"
        return f"{of}, equal with the runner-up; chosen because {rule}"
    difference = paired_bootstrap(
        first.counts,
        second.counts,
        family.scores,
        metric,
        intervals.resamples,
        intervals.seed,
        intervals.confidence,
    )
    if difference.better(family.sign(metric)):
        return f"{of}, reliably ahead of the runner-up by {difference}"
    return f"{of}, not reliably better than the runner-up ({difference}); chosen for its higher score"
