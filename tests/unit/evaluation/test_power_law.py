"""The power law finds what it was made from, and says when nothing can be told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apf_tasks.artifacts import LearningCurve, TokenizedSplit, TrainedModel
from apf_tasks.data.rows import read_rows, write_rows
from apf_tasks.evaluation._power_law import EXPONENTS, extrapolate, fit
from apf_tasks.evaluation._score_scale import scale_of
from apf_tasks.evaluation.learning_curve import learning_curve
from apf_tasks.evaluation.metrics.bootstrap import bootstrap
from apf_tasks.family import get_family
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.search import EvaluationParams
from apf_tasks.params.train import TrainParams

SENTIMENT, INTERVALS = FamilyParams(name="sentiment"), EvaluationParams(resamples=400)
SIZES = np.asarray([100.0, 200, 400, 800, 1600])


@pytest.mark.parametrize(("floor", "fall", "exponent"), [(0.1, 0.06, 0.5), (0.05, 0.13, 0.12), (0.15, 0.03, 0.9)])
def test_a_known_law_is_found_again(floor: float, fall: float, exponent: float) -> None:
    nearest = EXPONENTS[np.abs(EXPONENTS - exponent).argmin()]
    errors = floor + fall * (SIZES / 1600) ** -nearest
    law = fit(SIZES, errors[None, :], np.full(5, 0.01))
    assert (law.floor[0], law.fall[0], law.exponent[0]) == pytest.approx((floor, fall, nearest))
    assert law.errors(np.asarray([3200.0]))[0, 0] == pytest.approx(floor + fall * 2**-nearest)


def test_points_with_less_chance_count_more() -> None:
    errors = np.asarray([[0.40, 0.30, 0.35, 0.20, 0.16]])  # the third is out of line
    even, doubted = (fit(SIZES, errors, np.asarray([0.01, 0.01, third, 0.01, 0.01])) for third in (0.01, 1.0))
    assert abs(doubted.errors(SIZES)[0, 4] - 0.16) < abs(even.errors(SIZES)[0, 4] - 0.16)


def test_no_error_falls_below_none() -> None:
    law = fit(SIZES, np.asarray([[0.5, 0.4, 0.2, 0.05, 0.01]]), np.full(5, 0.01))
    assert law.floor[0] == 0
    assert (law.errors(np.asarray([3200.0, 1e9])) >= 0).all()


def test_scatter_beyond_chance_stretches_the_interval() -> None:
    random = np.random.default_rng(0)
    smooth = 0.1 + 0.06 * (SIZES / 1600) ** -0.5
    rough = smooth + 0.02 * np.asarray([1, -1, 1, -1, 1])
    noise = 0.002 * random.standard_normal((500, 5))
    along, beside = extrapolate(SIZES, smooth, smooth + noise), extrapolate(SIZES, rough, rough + noise)
    assert along is not None
    assert beside is not None
    assert along.stretch == 1
    assert 5 < beside.stretch < 20
    wide, narrow = (found.chance.errors(SIZES).std(axis=0) for found in (beside, along))
    assert (wide > 4 * narrow).all()


@pytest.mark.parametrize(
    ("metric", "sign", "score", "error", "shown"),
    [
        ("accuracy", 1, 0.8, 0.2, "+1.2 points of accuracy"),
        ("hamming_loss", -1, 0.2, 0.2, "+1.2 points of hamming_loss"),
        ("bleu", 1, 30.0, 70.0, "0.0 points of bleu"),
        ("perplexity", -1, float(np.exp(2)), 2.0, "+0.012 in perplexity"),
        ("mae", -1, 0.5, 0.5, "+0.012 in mae"),
    ],
)
def test_every_metric_has_an_error_and_a_unit(metric: str, sign: int, score: float, error: float, shown: str) -> None:
    scale = scale_of(metric, sign)
    assert scale.error(np.asarray([score])) == pytest.approx([error])
    assert scale.score(np.asarray([error])) == pytest.approx([score])
    assert scale.shown(0.012) + scale.unit == shown
    assert scale.shown(-0.5).startswith("−")


def trained(folder: Path, right: int, of: int) -> TrainedModel:
    """A model that is right in `right` of `of` validation rows, other ones for each model."""
    folder.mkdir(parents=True)
    wrong = np.random.default_rng(right).permutation(of)[right:]
    reference = np.where(np.arange(of) % 2, "yes", "no").astype(object)
    prediction = reference.copy()
    prediction[wrong] = np.where(wrong % 2, "no", "yes")
    write_rows(pd.DataFrame({"reference": reference, "prediction": prediction}), folder / "validation.parquet")
    facts = dict.fromkeys(("best_step", "optimizer_steps", "parameters", "trainable_parameters"), 1)
    facts |= dict.fromkeys(("parameters_changed", "peak_memory_gib", "tokens_per_second", "train_seconds"), 1)
    return TrainedModel.model_validate(
        {"path": folder, "fingerprint": str(right), "run_id": "r", "base": "b", "train": TrainParams()}
        | {"label_names": ("no", "yes"), "metric": "accuracy", "scores": {"accuracy": right / of}, "device": "cpu"}
        | {
            "model": ModelParams(base="b"),
            "precision": "fp32",
            "padding_fraction": 0,
            "data_waiting_fraction": 0,
            **facts,
        }
    )


def curve_of(folder: Path, right: list[int], of: int = 1000) -> LearningCurve:
    models = tuple(trained(folder / str(i), count, of) for i, count in enumerate(right))
    parts = tuple(
        TokenizedSplit(
            **{"path": folder, "fingerprint": str(i), "name": "train", "tokenizer": "t", "rows": 600 * 2**i},
            **{"examples": 600 * 2**i, "tokens": 1, "supervised_tokens": 1, "truncated_rows": 0},
            **{"unknown_fraction": 0, "max_tokens": 8, "label_names": ("no", "yes")},
        )
        for i in range(len(right))
    )
    out = folder / "out"
    out.mkdir()
    return learning_curve(out, models, parts, SENTIMENT, INTERVALS)


def test_a_rising_curve_says_what_twice_the_rows_bring(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, [700, 760, 800, 828])
    assert curve.verdict.startswith("Twice the rows (4,800 → 9,600) would bring about +")
    assert curve.gain is not None
    assert 0.01 < curve.gain < 0.028  # less than the last doubling did
    assert curve.gain_interval is not None
    low, high = curve.gain_interval
    assert 0 < low < curve.gain < high
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "out" / "curve.json").read_text())
    assert [point["rows"] for point in written["points"]] == [600, 1200, 2400, 4800]


def test_the_interval_of_a_point_is_the_bootstrap_of_its_rows(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, [700, 760, 800, 828])
    family, rows = get_family(SENTIMENT), read_rows(tmp_path / "1" / "validation.parquet")
    counts = family.statistics(rows["reference"].tolist(), rows["prediction"].tolist(), ("no", "yes"))
    expected = bootstrap(counts, family.scores, INTERVALS.resamples, INTERVALS.seed, INTERVALS.confidence)
    assert curve.intervals[1] == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize(
    ("right", "of", "said"),
    [
        ([80, 79, 81, 80], 100, "cannot be told from these points: anything from −"),
        ([70, 80, 90], 100, "cannot be told: at least 4 points are needed"),
        ([70, 80, 90, 100], 100, "cannot be told: there are no errors left on these validation rows"),
        ([0, 0, 0, 0], 100, "cannot be told: all scores are equal"),
        ([500, 520, 760, 765], 1000, "times as far from a power law as the validation rows explain. Train the small"),
    ],
)
def test_what_cannot_be_told_is_said(right: list[int], of: int, said: str, tmp_path: Path) -> None:
    curve = curve_of(tmp_path, right, of)
    assert said in curve.verdict
    assert curve.gain is None
    assert (tmp_path / "out" / "curve.png").is_file()


def test_more_rows_that_make_it_worse_are_said(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, [900, 850, 800, 750])
    assert "More rows made it worse" in curve.verdict
    assert curve.gain is not None
    assert curve.gain < 0
