"""The batches of each optimizer step, made ready by a thread while the step before is computed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from apf_tasks.data.batching import collate, cut_by_length, cut_by_tokens, epoch_order
from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.examples import Columns, Examples, count_targets, select_columns
from apf_tasks.params.train import TrainParams
from apf_tasks.runtime.ranks import partition
from apf_tasks.training.attention import Lengths
from apf_tasks.training.optim.schedules import steps_per_epoch
from apf_tasks.training.padding_free import lengths_of

Batch = dict[str, torch.Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass."""

    rows: np.ndarray
    """Its examples, by their number."""
    weight: int
    """1, or 0 to keep the other ranks company."""
    batch: Batch
    lengths: Lengths


@dataclass(frozen=True)
class StepBatch:
    """A step as this rank computes it."""

    step: int
    """From 0."""
    rows: np.ndarray
    columns: Columns
    targets: int
    """Labels that count in the loss, of all ranks."""
    passes: list[Pass]
    most: int
    """Tokens of a forward pass at most."""
    rank_tokens: tuple[int, int] = (0, 0)
    """Of the rank that has least, and of the one that has most."""
    largest: int = 0
    """Tokens of the largest pass of any rank, padding included where there is some."""


@dataclass
class StepLoader:
    """Where the batches of a training come from."""

    network: Predictor
    examples: Examples
    train: TrainParams
    padding_free: bool
    most: int
    """Tokens of a forward pass, padding included where there is some. May become less on the way."""
    _order: tuple[int, list[np.ndarray]] = (-1, [])
    """An epoch and its steps."""

    def steps(self, start: int, end: int) -> Iterator[StepBatch]:
        """The steps from `start` (from 0) to before `end`, each made ready one step ahead."""
        with ThreadPoolExecutor(1, "feed") as thread:
            coming = thread.submit(self.ready, start) if start < end else None
            for step in range(start, end):
                assert coming is not None
                now = coming.result()
                coming = thread.submit(self.ready, step + 1) if step + 1 < end else None
                yield now if now.most == self.most else self.resplit(now)

    def ready(self, step: int) -> StepBatch:
        """A step by its number alone: nothing depends on the steps before."""
        train = self.train
        per_epoch = steps_per_epoch(len(self.examples), train.batch_size)
        epoch = step // per_epoch
        if self._order[0] != epoch:
            order = epoch_order(len(self.examples), train.batch_size, train.seed, epoch)
            self._order = epoch, order
        rows = self._order[1][step % per_epoch]
        columns = self.examples.take(rows)
        if self.network.family.mask is not None:
            columns = self.network.family.mask(columns, self.network.base, (train.seed, epoch))
        return self.resplit(StepBatch(step, rows, columns, max(1, count_targets(columns)), [], 0))

    def resplit(self, ready: StepBatch) -> StepBatch:
        """The same step in the passes that `most` allows now."""
        sizes, place = self.examples.sizes[ready.rows], self.network.place
        parts = split_among_ranks(sizes, place.ranks.count, self.most, self.padding_free)
        mine = [(one, 1) for one in parts[place.ranks.index]]
        if place.sharded:  # ranks that share one copy of the model go through it together
            mine += [(np.zeros(1, np.int64), 0)] * (max(map(len, parts)) - len(mine))
        tokens = [sum(int(sizes[one].sum()) for one in part) for part in parts]
        return replace(
            ready,
            passes=[self._pass(ready, positions, weight) for positions, weight in mine],
            most=self.most,
            rank_tokens=(min(tokens), max(tokens)),
            largest=max(pass_tokens(sizes[one], self.padding_free) for part in parts for one in part),
        )

    def _pass(self, ready: StepBatch, positions: np.ndarray, weight: int) -> Pass:
        """The tensors of a pass, in memory from which a CUDA device reads while it computes."""
        mine = select_columns(ready.columns, positions.tolist())
        batch = collate(mine, self.network.base.pad_id, CPU)
        if self.network.place.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return Pass(ready.rows[positions], weight, batch, lengths_of(mine))


def split_among_ranks(sizes: np.ndarray, ranks: int, most: int, padding_free: bool) -> list[list[np.ndarray]]:
    """The examples of a step, by their positions in it: for each rank its forward passes of at most so many tokens.

    The ranks get like shares of the tokens: they differ by at most one row.
    """
    cut = cut_by_tokens if padding_free else cut_by_length
    parts = [np.array(part, np.int64) for part in partition(sizes.tolist(), ranks)]
    return [[part[one] for one in cut(sizes[part], most)] for part in parts]


def pass_tokens(sizes: np.ndarray, padding_free: bool) -> int:
    """What the layers compute for examples of such sizes together."""
    return int(sizes.sum() if padding_free else len(sizes) * sizes.max())
