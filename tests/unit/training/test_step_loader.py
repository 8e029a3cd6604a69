"""What each rank gets of a step, and what it takes to make a step ready."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apf_tasks.data.batching import epoch_order
from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.examples import Examples, token_table
from apf_tasks.family import get_family
from apf_tasks.models.pretrained import load_base
from apf_tasks.params.family import family_params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import TrainParams
from apf_tasks.runtime.ranks import Ranks
from apf_tasks.training.loop import max_tokens_per_forward
from apf_tasks.training.state import say_idle_ranks
from apf_tasks.training.step_loader import StepLoader
from tests.support.tiny import tiny_model
from tests.unit.training.test_loop import NAMES, PLACE, Setting


def loaders(
    network: Predictor, examples: Examples, train: TrainParams, device: str, count: int, padding_free: bool = False
) -> list[StepLoader]:
    """One for each of so many ranks, with the forward passes of such a device."""
    most = max_tokens_per_forward(train, device)
    places = [replace(network.place, ranks=Ranks(index, count)) for index in range(count)]
    return [StepLoader(replace(network, place=place), examples, train, padding_free, most) for place in places]


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize(("device", "batch_size"), [("cpu", 16), ("cuda", 16), ("cuda", 32), ("cuda", 9)])
def test_every_rank_computes_a_like_share_of_every_step(
    tmp_path: Path, device: str, batch_size: int, padding_free: bool
) -> None:
    """Also where a whole step would fit into one forward pass."""
    setting, train = Setting(tmp_path / "tiny"), TrainParams(batch_size=batch_size)
    examples = setting.examples()
    order = epoch_order(len(examples), train.batch_size, train.seed, 0)
    ranks = loaders(setting.network(), examples, train, device, 4, padding_free)
    for step, rows in enumerate(order):
        ready = [loader.ready(step) for loader in ranks]
        computed = [np.concatenate([one.rows for one in mine.passes]) for mine in ready]
        assert sorted(np.concatenate(computed)) == sorted(rows), "every row once"
        tokens = [int(examples.sizes[those].sum()) for those in computed]
        assert max(tokens) - min(tokens) <= examples.sizes[rows].max()
        assert {mine.rank_tokens for mine in ready} == {(min(tokens), max(tokens))}


def test_ranks_that_share_a_model_make_the_same_number_of_passes(tmp_path: Path) -> None:
    setting, train = Setting(tmp_path / "tiny"), TrainParams(batch_size=6, micro_batch_tokens=16)
    network = setting.network()
    network = replace(network, place=replace(network.place, sharded=True))
    ready = [loader.ready(0) for loader in loaders(network, setting.examples(), train, "cuda", 8)]
    assert len({len(mine.passes) for mine in ready}) == 1
    assert sum(one.weight * len(one.rows) for mine in ready for one in mine.passes) == 6


def test_fewer_rows_than_ranks_are_said(caplog: pytest.LogCaptureFixture) -> None:
    say_idle_ranks(rows=100, batch_size=16, ranks=Ranks(0, 4))
    assert not caplog.records
    say_idle_ranks(rows=100, batch_size=2, ranks=Ranks(0, 4))
    assert "a step has 2 row(s), fewer than the 4 ranks" in caplog.text
    say_idle_ranks(rows=99, batch_size=16, ranks=Ranks(0, 4))
    assert "in the last step of an epoch some ranks compute nothing: a step has 3 row(s)" in caplog.text


BYTES = 64
"""Of memory per token of a step, at most: int64 ids and labels, masks or positions, and a copy of them."""
listed = pytest.mark.xfail(strict=True, reason="ids and labels become lists of Python numbers, more than once")


@pytest.mark.parametrize(
    "family", ["sentiment", pytest.param("causal_lm", marks=listed), pytest.param("masked_lm", marks=listed)]
)
def test_a_step_is_made_ready_in_a_few_bytes_for_each_token(family: str, tmp_path: Path) -> None:
    """Numbers that are Python's are what limits the tokens that are made ready in a second."""
    loader = with_long_rows(family, tmp_path)
    loader.ready(0)  # what is made once
    tracemalloc.start()
    try:
        ready = loader.ready(1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / int(loader.examples.lengths[ready.rows].sum()) <= BYTES


def with_long_rows(family: str, folder: Path) -> StepLoader:
    """Rows of 512 random ids, 32 to a step."""
    writes = family == "causal_lm"
    base_folder = tiny_model(folder / "base", "gpt2" if writes else "bert", max_tokens=512)
    base = load_base(base_folder, ModelParams(base=str(base_folder), max_tokens=512))
    functions = get_family(family_params(family)(name=family))
    ids = np.random.default_rng(0).integers(300, 10_000, (64, 512)).tolist()
    columns: dict[str, list[Any]] = {"input_ids": ids, "labels": [[1]] * 64 if family == "sentiment" else ids}
    if functions.mask is not None:
        columns["words"] = [list(range(1, 513))] * 64
    network = Predictor(None, base, functions, NAMES, PLACE)  # type: ignore[arg-type]  # no step of it is computed
    return StepLoader(network, Examples(token_table(columns)), TrainParams(batch_size=32), True, 1 << 20)
