"""Where trials come from, how far they are trained, and what a search costs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params
from apf_tasks.params.search import HalvingParams
from apf_tasks.search.halving import expected_steps, rung_count, rung_step, survivors
from apf_tasks.search.trials import TrialSource, label, trial_source

THIRDS = HalvingParams(eta=3, min_steps=16)


def experiment(folder: Path, search: str) -> Params:
    path = folder / "x.yaml"
    path.write_text("family: sentiment\ndata: {source: rows.csv}\nmodel: {base: a}\n")
    return load_params(path, [f"search={search}"])


def all_of(source: TrialSource, scores: list[float | None] | None = None) -> list[dict[str, float]]:
    found = []
    while (trial := source.ask()) is not None:
        if scores is not None:
            source.tell(scores[len(found)])
        found.append(trial)
    return found


SPACE = "{train.learning_rate: {low: 1e-5, high: 1e-3, log: true}, train.batch_size: {low: 8, high: 12}}"


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_draws_lie_in_their_ranges_and_repeat(tmp_path: Path, strategy: str) -> None:
    params = experiment(tmp_path, f"{{space: {SPACE}, strategy: {strategy}, trials: 30}}")
    scores: list[float | None] = [None if i == 5 else -abs(i - 9.0) for i in range(30)]
    found = all_of(trial_source(params), scores)
    assert len(found) == 30
    rates = [trial["train.learning_rate"] for trial in found]
    assert not [rate for rate in rates if not 1e-5 <= rate <= 1e-3], "rates from 1e-5 to 1e-3"
    assert {trial["train.batch_size"] for trial in found} == {8, 9, 10, 11, 12}
    assert found == all_of(trial_source(params), scores)
    more = experiment(tmp_path, f"{{space: {SPACE}, strategy: {strategy}, trials: 40}}")
    assert all_of(trial_source(more), scores + [0.0] * 10)[:30] == found  # what was drawn before is drawn again


def test_tpe_learns_from_scores(tmp_path: Path) -> None:
    space = "{train.learning_rate: {low: 1e-5, high: 1e-3, log: true}}"

    def distance(strategy: str) -> float:
        source = trial_source(experiment(tmp_path, f"{{space: {space}, strategy: {strategy}, trials: 60}}"))
        distances = []
        while (trial := source.ask()) is not None:
            distances.append(abs(math.log10(trial["train.learning_rate"] / 1e-4)))
            source.tell(-distances[-1])
        return sum(distances[-20:]) / 20

    assert distance("tpe") < 0.5 * distance("random")


def test_values_in_lists_are_drawn_by_position(tmp_path: Path) -> None:
    params = experiment(tmp_path, "{space: {model: [{base: a}, {base: b}], train.epochs: [1, 2]}, strategy: random}")
    found = all_of(trial_source(params))
    assert len(found) == 16
    assert {str(trial["model"]) for trial in found} == {"{'base': 'a'}", "{'base': 'b'}"}


def test_rungs_are_powers_of_eta_before_the_end() -> None:
    assert rung_count(152, THIRDS) == 2
    assert [rung_step(152, left, THIRDS) for left in (2, 1, 0)] == [17, 51, 152]
    assert rung_count(16 * 27, THIRDS) == 3  # an exact power is not lost to rounding
    assert rung_count(16, THIRDS) == rung_count(47, THIRDS) == 0
    assert rung_count(152, None) == 0
    assert [survivors(n, THIRDS) for n in (16, 6, 2, 1)] == [6, 2, 1, 1]


def test_what_halving_costs() -> None:
    # 16 to step 16; 6 of them to 48; 2 to 144
    steps = 16 * 16 + 6 * (48 - 16) + 2 * (144 - 48)
    assert expected_steps(16, 144, 2, THIRDS) == steps
    assert steps <= 0.35 * 16 * 144
    assert expected_steps(16, 144, 0, None) == 16 * 144


def test_how_trials_are_called() -> None:
    assert label({"train.learning_rate": 0.00043123, "train.batch_size": 8}) == "learning_rate=0.000431 batch_size=8"
    assert label({"model": {"base": "a", "sha256": "0" * 64}}) == "model=a"
    assert label({}) == ""
