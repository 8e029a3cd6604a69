"""The batches of each optimizer step, made ready by a thread while the step before is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from apf_tasks.data.batching import collate, collate_packed, epoch_order, micro_batches, pack
from apf_tasks.evaluation.predictor import Placement, Predictor
from apf_tasks.examples import Columns, Examples, count_targets, select_columns
from apf_tasks.params.train import TrainParams
from apf_tasks.training.optim.schedules import steps_per_epoch

Batch = dict[str, torch.Tensor]
MicroBatch = list[list[int]]
"""Sequences of a forward pass, each by the positions of its examples in the step: one where nothing is packed."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class StepBatch:
    """A step as this rank computes it."""

    step: int
    """From 0."""
    rows: np.ndarray
    columns: Columns
    targets: int
    """Labels that count in the loss, of all ranks."""
    passes: list[tuple[int, int, Batch]]
    """Number of a forward pass in the step, its weight (1, or 0 to keep the other ranks company), its tensors."""
    most: int
    """Tokens of a forward pass at most."""


@dataclass
class StepLoader:
    """Where the batches of a training come from."""

    network: Predictor
    examples: Examples
    train: TrainParams
    packed: bool
    most: int
    """Tokens of a forward pass, padding included. May become less on the way."""
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
            order = epoch_order(self.examples.sizes, train.batch_size, train.seed, epoch, self.packed)
            self._order = epoch, order
        rows = self._order[1][step % per_epoch]
        columns = self.examples.take(rows)
        if self.network.family.mask is not None:
            columns = self.network.family.mask(columns, self.network.base, (train.seed, epoch))
        return self.resplit(StepBatch(step, rows, columns, max(1, count_targets(columns)), [], 0))

    def resplit(self, ready: StepBatch) -> StepBatch:
        """The same step in the passes that `most` allows now."""
        most, base = self.most, self.network.base
        passes = split_into_micro_batches(
            self.examples.sizes[ready.rows], most, base.max_tokens if self.packed else None
        )
        mine = _local_micro_batches(passes, self.network.place)
        batches = [(number, weight, self._batch(ready.columns, passes[number])) for number, weight in mine]
        return replace(ready, passes=batches, most=most)

    def _batch(self, columns: Columns, one: MicroBatch) -> Batch:
        """The tensors of a pass, in memory from which a CUDA device reads while it computes."""
        pad_id = self.network.base.pad_id
        if self.packed:
            batch = collate_packed(columns, one, pad_id, CPU)
        else:
            batch = collate(select_columns(columns, [i for sequence in one for i in sequence]), pad_id, CPU)
        if self.network.place.device.type != "cuda":
            return batch
        return {name: tensor.pin_memory() for name, tensor in batch.items()}


def split_into_micro_batches(sizes: np.ndarray, most: int, pack_into: int | None = None) -> list[MicroBatch]:
    """The examples of a step as forward passes of at most so many tokens: padded, or packed into such sequences."""
    if pack_into is None:
        return [[[i] for i in micro.tolist()] for micro in micro_batches(np.arange(len(sizes)), sizes, most)]
    sequences = pack(sizes.tolist(), max(int(sizes.max()), min(pack_into, most)))
    at_once = max(1, most // pack_into)
    return [sequences[first : first + at_once] for first in range(0, len(sequences), at_once)]


def _local_micro_batches(passes: Sequence[MicroBatch], place: Placement) -> list[tuple[int, int]]:
    """The passes of this rank by their number, and what each weighs.

    Ranks that share one copy of the model go through it together, so that all have the same number of passes.
    """
    mine = [(number, 1) for number in place.ranks.partition([len(one) for one in passes], even=place.sharded)]
    missing = -(-len(passes) // place.ranks.count) - len(mine) if place.sharded else 0
    return mine + [(0, 0)] * missing
