"""One training in several processes: the trajectory of one, on any number of ranks, divided or not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from apf_tasks.artifacts import TokenizedSplit, TrainedModel
from apf_tasks.cache.store import CHECKPOINT_DIR
from apf_tasks.errors import InterruptedByUser, ModelError, ParamsError, WorkerDiedError
from apf_tasks.examples import Examples
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime._rank import CALLER
from apf_tasks.runtime.launch import check_caller, run_on_ranks
from apf_tasks.runtime.ranks import Ranks
from apf_tasks.tracking import run_logger, tracker
from tests.integration.training.test_train_stage import PARAMS, points, prepared, reached, started, train, wait_for
from tests.support import rank_calls
from tests.support.tiny import tiny_model

LONGER = PARAMS.model_copy(update={"epochs": 4, "evaluate_every_steps": 9, "batch_size": 8, "micro_batch_tokens": 48})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The training of one rank: what it wrote, and its losses."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APF_MLRUNS", str(out / "mlruns"))
        trained = train(folder, out, params=LONGER)
        return {"trained": trained, "losses": points(trained.run_id, "train/loss"), "weights": weights(out)}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def same_as_alone(trained: TrainedModel, alone: dict[str, Any]) -> None:
    """Every step's loss, the scores and the weights, to what adding in another order rounds."""
    losses = points(trained.run_id, "train/loss")
    assert [step for step, _ in losses] == [step for step, _ in alone["losses"]]
    np.testing.assert_allclose([v for _, v in losses], [v for _, v in alone["losses"]], rtol=2e-3, atol=2e-4)
    assert trained.scores == pytest.approx(alone["trained"].scores, abs=0.05)
    assert trained.padding_fraction == alone["trained"].padding_fraction
    same_weights(trained, alone)


def same_weights(trained: TrainedModel, alone: dict[str, Any]) -> None:
    """To what adding in another order rounds."""
    for name, tensor in weights(trained.path).items():
        torch.testing.assert_close(tensor, alone["weights"][name], rtol=1e-2, atol=5e-3)


def test_four_ranks_train_as_one(folder: Path, tmp_path: Path, alone: dict[str, Any]) -> None:
    trained = train(folder, tmp_path / "out", params=LONGER, devices=4)
    same_as_alone(trained, alone)
    assert trained.parameters_changed == alone["trained"].parameters
    assert tracker.client().get_run(trained.run_id).info.status == "FINISHED"
    assert len(tracker.client().search_runs(["1"])) == 1, "one run for all ranks"  # the first rank alone tracks
    least, most = (dict(points(trained.run_id, f"train/{name}_rank_tokens")) for name in ("least", "most"))
    rows = TokenizedSplit.model_validate_json((folder / "train.json").read_text())
    longest = Examples.of(rows).sizes.max()
    assert len(least) == trained.optimizer_steps
    assert all(0 < least[step] <= most[step] <= least[step] + longest for step in least)


@pytest.fixture(scope="module")
def whole_steps(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[rank_calls.Trajectory, list[float]]]:
    """Trainings of one rank with a pass to a step, and their losses."""
    bert, gpt2 = (tiny_model(tmp_path_factory.mktemp("tiny") / name, name) for name in ("bert", "gpt2"))
    cases = [
        rank_calls.Trajectory(family, folder, dropout, padded, tokens=10**6)
        for family, folder in (("sentiment", bert), ("causal_lm", gpt2))
        for dropout in (0.0, 0.1)
        for padded in (False, True)
    ]
    losses = rank_calls.trajectories(cases)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3), "dropout drops something"
    return list(zip(cases, losses, strict=True))


@pytest.mark.parametrize("ranks", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 4))])
def test_any_number_of_ranks_and_any_memory_follow_one_trajectory(
    ranks: int, whole_steps: list[tuple[rank_calls.Trajectory, list[float]]]
) -> None:
    accumulated = [case._replace(tokens=60) for case, _ in whole_steps]
    halved_on_the_way = [case._replace(memory=50) for case, _ in whole_steps]
    mixed = [whole_steps[2][0]._replace(tokens=tokens, bf16=True) for tokens in (10**6, 60)]
    cases = [*accumulated, *halved_on_the_way, *mixed]
    found = run_on_ranks(RuntimeParams(device="cpu", devices=ranks), rank_calls.trajectories, cases)
    for case, losses, (_, alone) in zip(cases, found, [*whole_steps, *whole_steps], strict=False):
        assert losses == pytest.approx(alone, rel=1e-6), case
    assert found[-1] == pytest.approx(found[-2], rel=2e-3)  # products in bfloat16 are summed in another order
    assert found[-1] == pytest.approx(whole_steps[2][1], rel=2e-2)


@pytest.mark.slow
def test_a_rank_without_memory_for_one_row_is_an_error_of_all(tmp_path: Path) -> None:
    case = rank_calls.Trajectory("sentiment", tiny_model(tmp_path / "bert", "bert"), memory=3)
    with pytest.raises(ModelError, match=r"CUDA out of memory.* Write runtime\.activations=recompute"):
        run_on_ranks(RuntimeParams(device="cpu", devices=2), rank_calls.trajectories, [case])


@pytest.mark.slow
def test_what_four_ranks_began_one_ends_with_the_same_losses(folder: Path, tmp_path: Path) -> None:
    few = LONGER.model_copy(update={"epochs": 1, "learning_rate": 1e-4})
    alone = train(folder, tmp_path / "alone", params=few)
    begun = reached(folder, tmp_path / "out", few, until=6, devices=4)
    assert begun.step == 6
    continued = train(folder, tmp_path / "out", params=few)
    assert continued.resumed_from_step == 6
    losses, expected = ([value for _, value in points(one.run_id, "train/loss")] for one in (continued, alone))
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_two_ranks_that_divide_a_model_save_when_told_to_stop_and_any_number_goes_on(
    folder: Path, tmp_path: Path, alone: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    process = started([str(folder), str(out), "60", "2"])
    wait_for((out / run_logger.RUN_FILE).exists, process)
    process.send_signal(signal.SIGTERM)
    error = process.communicate()[1]
    assert "SIGTERM at step" in error
    assert "the same command continues from it" in error
    assert len(list((out / CHECKPOINT_DIR).glob("state-*/*.distcp"))) == 2  # each rank wrote its part
    shutil.copytree(out, tmp_path / "other")
    (tmp_path / "other" / run_logger.RUN_FILE).unlink()  # a run of its own, without the points up to here
    continued = train(folder, out, params=LONGER)
    assert continued.resumed_from_step
    same_as_alone(continued, alone)
    continued = train(folder, tmp_path / "other", params=LONGER, devices=3, shard=True)
    assert continued.resumed_from_step
    assert continued.scores == pytest.approx(alone["trained"].scores, abs=0.05)
    same_weights(continued, alone)


def test_every_kind_of_head_learns_divided_what_it_learns_whole(tmp_path: Path) -> None:
    kinds = [("causal_lm", "gpt2"), ("causal_lm", "qwen2"), ("masked_lm", "bert"), ("masked_lm", "modernbert")]
    kinds += [("translation", "t5"), ("translation", "bart"), ("translation", "llama")]
    cases = [(family, tiny_model(tmp_path / name, name)) for family, name in kinds]
    whole = rank_calls.learns(cases)
    divided = run_on_ranks(RuntimeParams(device="cpu", devices=2, shard=True), rank_calls.learns, cases)
    for one, two in zip(whole, divided, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["gradients"].keys() == one["gradients"].keys()
        for name, gradient in two["gradients"].items():  # each rank had the whole batch
            np.testing.assert_allclose(gradient, 2 * one["gradients"][name], rtol=1e-3, atol=1e-5, err_msg=name)
        for mine, theirs in zip(one["said"], two["said"], strict=True):
            assert theirs == (mine if isinstance(mine, str) else pytest.approx(mine, rel=1e-4))


def test_a_rank_whose_caller_is_dead_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CALLER, str(os.getpid()))
    check_caller()
    caller = subprocess.Popen([sys.executable, "-c", ""])
    caller.wait()
    monkeypatch.setenv(CALLER, str(caller.pid))
    with pytest.raises(InterruptedByUser, match="a dead one"):
        check_caller()


@pytest.mark.slow
def test_a_rank_that_dies_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(WorkerDiedError, match=r"found one that exited \(exit code -9"):
        run_on_ranks(RuntimeParams(device="cpu", devices=2), rank_calls.dies)


def test_what_a_rank_raises_comes_back() -> None:
    with pytest.raises(ParamsError, match=r"runtime\.device: expected"):
        run_on_ranks(RuntimeParams(device="cpu", devices=2), rank_calls.raises)


def test_what_one_rank_raises_comes_back_while_the_others_wait_for_it() -> None:
    with pytest.raises(ModelError, match=r"CUDA out of memory.* Write runtime\.activations=recompute"):
        run_on_ranks(RuntimeParams(device="cpu", devices=2), rank_calls.runs_out_of_memory)


def test_what_is_shared_out_is_shared_out_once_and_in_like_parts() -> None:
    costs = [900, 40, 300, 310, 40, 280]
    shares = [Ranks(index, 2).partition(costs) for index in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(6))
    assert abs(sum(costs[i] for i in shares[0]) - sum(costs[i] for i in shares[1])) <= 40
    assert Ranks(2, 3).partition([5]) == []
