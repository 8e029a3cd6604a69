"""Which trial is chosen: by the mean of its seeds, by the rule, and of equal ones the cheaper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from apf_tasks.artifacts import Selection, TrainedModel
from apf_tasks.data.rows import write_rows
from apf_tasks.evaluation.selection import select
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.search import EvaluationParams, SelectParams
from apf_tasks.params.train import TrainParams

FAMILY = FamilyParams(name="sentiment")
ROWS = 20


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A model of 1,000 parameters after 10 steps, that is right about so many of the rows."""

    def make(rate: float, right: int, seed: int = 0, parameters: int = 1000, **facts: Any) -> TrainedModel:
        folder = tmp_path / f"{rate}-{seed}"
        folder.mkdir()
        reference = ["good", "bad"] * (ROWS // 2)
        wrong = ["bad" if label == "good" else "good" for label in reference]
        table = pd.DataFrame({"reference": reference, "prediction": [*reference[:right], *wrong[right:]]})
        write_rows(table, folder / "validation.parquet")
        known = {
            "path": folder,
            "fingerprint": folder.name,
            "run_id": folder.name,
            "base": "tiny",
            "model": ModelParams(base="tiny"),
            "train": TrainParams(learning_rate=rate, seed=seed, batch_size=8),
            "label_names": ("bad", "good"),
            "best_step": 10,
            "optimizer_steps": 10,
            "metric": "accuracy",
            "scores": {"accuracy": right / ROWS},
            "device": "cpu",
            "precision": "fp32",
        }
        measured = (
            "peak_memory_gib",
            "tokens_per_second",
            "padding_fraction",
            "train_seconds",
            "data_waiting_fraction",
        )
        sizes = dict.fromkeys(("parameters", "trainable_parameters", "parameters_changed"), parameters)
        return TrainedModel.model_validate(known | dict.fromkeys(measured, 0.0) | sizes | facts)

    return make


def chosen(out: Path, *models: TrainedModel, rule: str = "best") -> Selection:
    settings = SelectParams.model_validate({"rule": rule})
    intervals = EvaluationParams(resamples=200)
    return select(out, models, FAMILY, settings, intervals, ("train.learning_rate",), len(models))


def test_the_best_score_is_chosen(trained: Any, tmp_path: Path) -> None:
    found = chosen(tmp_path, trained(0.1, 12), trained(0.2, 19), trained(0.3, 5))
    assert [c.trial for c in found.candidates] == [{"train.learning_rate": rate} for rate in (0.2, 0.1, 0.3)]
    assert [c.score for c in found.candidates] == [0.95, 0.6, 0.25]
    assert found.chosen.fingerprint == "0.2-0"
    assert found.tie_break.startswith("best of 3, reliably ahead of the runner-up by +0.3500")


def test_the_mean_of_the_seeds_counts_and_the_best_of_them_is_kept(trained: Any, tmp_path: Path) -> None:
    lucky = [trained(0.1, right, seed) for seed, right in enumerate((20, 2, 2))]
    steady = [trained(0.2, right, seed) for seed, right in enumerate((13, 15, 14))]
    found = chosen(tmp_path, *lucky, *steady)
    assert [(c.score, c.seeds) for c in found.candidates] == [
        (pytest.approx(0.7), (0.65, 0.75, 0.7)),
        (pytest.approx(0.4), (1.0, 0.1, 0.1)),
    ]
    assert found.chosen.fingerprint == "0.2-1"


def test_of_equal_ones_the_cheaper_is_chosen(trained: Any, tmp_path: Path) -> None:
    found = chosen(tmp_path, trained(0.1, 15), trained(0.2, 15, parameters=500), trained(0.3, 15, optimizer_steps=20))
    assert [c.trial["train.learning_rate"] for c in found.candidates] == [0.2, 0.1, 0.3]
    assert found.tie_break == "best of 3, equal with the runner-up; chosen because cheaper to train"


def test_within_one_standard_error_of_the_best_the_cheapest_is_chosen(trained: Any, tmp_path: Path) -> None:
    # at 16 of 20 right the standard error is (0.8 * 0.2 / 20) ** 0.5, about 0.09
    models = [trained(0.1, 16), trained(0.2, 15, parameters=10), trained(0.3, 12, parameters=1)]
    assert chosen(tmp_path, *models).chosen.fingerprint == "0.1-0"
    found = chosen(tmp_path, *models, rule="one_standard_error")
    assert found.chosen.fingerprint == "0.2-0", "0.3 is cheaper, but too far behind"
    assert "the cheapest within one standard error" in found.tie_break
