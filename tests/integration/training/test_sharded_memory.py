"""What each rank of a divided model holds: its part and a layer, never the whole."""

from __future__ import annotations

import pytest

from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.launch import run_on_ranks
from tests.support import sharded_calls
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.slow

RANKS = 4
Found = list[dict[str, float]]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Bytes, by rank."""
    folder = tmp_path_factory.mktemp("divided")
    base = tiny_model(folder / "base", "llama", hidden_size=128, num_layers=4, intermediate_size=256)
    return run_on_ranks(RuntimeParams(device="cpu", devices=RANKS, shard=True), sharded_calls.held, base, folder)


def at_most_its_part_and_a_layer(held: Found, when: str) -> None:
    assert len(held) == RANKS
    for rank in held:
        assert rank[when] <= 1.1 * (rank["part"] + rank["layer"]), held


@pytest.mark.xfail(strict=True, reason="every rank loads the whole model, which is divided afterwards")
def test_a_rank_loads_its_part(held: Found) -> None:
    at_most_its_part_and_a_layer(held, "loaded")


@pytest.mark.xfail(strict=True, reason="every rank gathers all weights to keep the best, and all but one drop them")
def test_keeping_the_best_weights_takes_a_part_and_a_layer(held: Found) -> None:
    at_most_its_part_and_a_layer(held, "save_best")


@pytest.mark.xfail(strict=True, reason="every rank gathers the whole state before the model is written")
def test_writing_the_model_takes_a_part_and_a_layer(held: Found) -> None:
    at_most_its_part_and_a_layer(held, "written")


def test_a_forward_pass_leaves_no_whole_weights(held: Found) -> None:
    assert [rank for rank in held if rank["kept"] > 0.2] == []


def test_divided_layers_are_compiled(held: Found) -> None:
    assert [rank["compiled"] for rank in held] == [1] * RANKS
