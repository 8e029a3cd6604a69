"""Dropout on the CPU whose draws belong to (seed, step, row), not to the forward pass that a row happens to be in.

So a step may be cut into passes, and divided over ranks, in any way. Other devices have fused kernels, which draw for a
pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from apf_tasks.training._kernels import replaced_kernel
from apf_tasks.training.attention import Lengths, PaddingFree

LEVELS = 2**16
"""A value takes 16 random bits: the probability is rounded to 1/65,536."""
WARM_UP = 18
"""Rounds after which the words of a state are mixed (Doty-Humphrey, PractRand, for SFC64 with three words)."""
ALL_ROWS = 2**64 - 1
"""Instead of a row, for what belongs to none of them: positions that all rows share."""
ATTENTION = 4
"""Dimensions of what is dropped of an attention: rows, heads, queries, keys."""


class RowDraws:
    """What dropout draws in a step: a stream of SFC64 for each row and each call, whose state these numbers are."""

    def __init__(self, seed: int, step: int) -> None:
        self._seed = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0])
        self._rows: list[int] | None = None
        self._free: PaddingFree | None = None
        self._longest: list[int] = []
        """Of each row: its tokens, or its labels where these are more."""
        self._tokens: set[int] = set()
        """Of the whole pass, padding included."""
        self._calls: dict[int, int] = {}
        self._call = 0
        self._bits = np.random.SFC64(0)

    def begin(self, rows: Sequence[int] | np.ndarray, lengths: Lengths, free: PaddingFree | None) -> None:
        """The pass of these rows begins."""
        self._rows, self._free, self._calls = [int(row) for row in rows], free, {}
        self._longest = [max(both) for both in zip(*lengths.values(), strict=True)]
        self._tokens = {len(rows) * max(of_rows) for of_rows in lengths.values()}

    def bernoulli(
        self, values: torch.Tensor, p: float = 0.5, *, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Fill with 1 where a draw is below `p`, else 0: torch's operation, which all that drops goes through."""
        below = round(p * LEVELS)
        if below in (0, LEVELS):
            return values.fill_(below // LEVELS)
        self._next_call(generator)
        ones = np.empty(values.shape, np.bool_)
        pieces = self._pieces(ones)
        for row, piece in pieces.items():
            np.less(self._draw(row, piece.size).reshape(piece.shape), np.uint16(below), out=piece)
        if not pieces:
            self._attention_of_padded_rows(ones, below)
        return values.copy_(torch.from_numpy(ones))

    def _next_call(self, generator: torch.Generator | None) -> None:
        """Number the calls of a pass. A layer that is computed again finds torch's generator as it was, and its number.

        The attention of one layer is one call, in however many pieces it is computed.
        """
        if self._free is not None and self._free.attended is not None and self._free.attended.start > 0:
            return
        drawn = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
        self._call = drawn if self._rows is None else self._calls.setdefault(drawn, len(self._calls))

    def _draw(self, row: int, count: int) -> np.ndarray:
        """So many numbers of 16 bits; more of them begin with the same."""
        state = np.array([self._seed, row, self._call, 1], np.uint64)
        self._bits.state = {"bit_generator": "SFC64", "state": {"state": state}, "has_uint32": 0, "uinteger": 0}
        return self._bits.random_raw(WARM_UP - (-count // 4))[WARM_UP:].view(np.uint16)[:count]

    def _pieces(self, ones: np.ndarray) -> Mapping[int, np.ndarray]:
        """The part of each row; none for the attention of padded rows."""
        rows, free = self._rows, self._free
        if rows is None:
            return {ALL_ROWS: ones}
        if free is not None and free.attended is not None:
            return {rows[at]: ones[here] for here, at in enumerate(free.attended)}
        if free is not None and (own := free.own) is not None and own.shape in (ones.shape[:2], (1, len(ones))):
            tokens = ones.reshape(own.shape[1], -1)
            ends = np.cumsum(own.lengths)
            return {row: tokens[end - n : end] for row, end, n in zip(rows, ends, own.lengths, strict=True)}
        if len(ones) == len(rows):
            return {} if ones.ndim == ATTENTION else dict(zip(rows, ones, strict=True))
        if len(ones) in self._tokens:  # a layer for which rows and tokens are one dimension
            return dict(zip(rows, ones.reshape(len(rows), -1), strict=True))
        return {ALL_ROWS: ones}

    def _attention_of_padded_rows(self, ones: np.ndarray, below: int) -> None:
        """(B, A, queries, keys), filled up on the right: as many draws as the row has tokens, with any padding."""
        ones[:] = True
        for row, longest, piece in zip(self._rows or [], self._longest, ones, strict=True):
            drawn = self._draw(row, len(piece) * longest**2).reshape(len(piece), longest, longest)
            queries, keys = (min(longest, width) for width in piece.shape[1:])
            np.less(drawn[:, :queries, :keys], np.uint16(below), out=piece[:, :queries, :keys])


@contextmanager
def dropout_by_row(device: torch.device, seed: int, step: int) -> Iterator[RowDraws]:
    """Within the block, torch draws dropout on the CPU by row, and without waiting for a double for each value."""
    draws = RowDraws(seed, step)
    if device.type != "cpu":
        yield draws
        return
    with replaced_kernel("bernoulli_.float", draws.bernoulli, "CPU"):
        yield draws
