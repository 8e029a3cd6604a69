"""Gradients of embeddings over the rows in use alone, on the CPU: the others are not written by every pass to add 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from apf_tasks.training._kernels import replaced_kernel

aten = torch.ops.aten


class SparseEmbeddingGradients:
    """Gradients of the embeddings in a backward pass, until they are added to the tables' gradients.

    N tokens, V rows of the table, H hidden size.
    """

    def __init__(self) -> None:
        self._felt: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        """Tables (V, H), the rows used (N,), and the gradients there (N, H)."""

    def note(self, table: torch.Tensor, rows: torch.Tensor, gradient: torch.Tensor) -> None:
        """For `add`."""
        self._felt.append((table, rows, gradient))

    def add(self) -> None:
        """To the gradients of the tables, after a backward pass: the same sums as of whole tables, in another order."""
        for table, rows, gradient in self._felt:
            if table.grad is None:
                table.grad = torch.zeros_like(table)
            table.grad.index_add_(0, rows, gradient.to(table.grad.dtype))
        self._felt.clear()


class _Lookup(torch.autograd.Function):
    """Rows of a table. Its gradient is noted where the table is a parameter, and given where it was computed."""

    @staticmethod
    def forward(
        ctx: Any,
        table: torch.Tensor,
        ids: torch.Tensor,
        padding: int,
        frequent: bool,
        sparse: bool,
        used: SparseEmbeddingGradients,
    ) -> torch.Tensor:
        ctx.given = table, ids, padding, frequent, sparse, used
        return table.index_select(0, ids.flatten()).view(*ids.shape, -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        table, ids, padding, frequent, sparse, used = ctx.given
        if frequent or sparse or not table.is_leaf or table.dtype != torch.float32:  # sums want all bits
            whole = aten.embedding_backward(gradient, ids, len(table), padding, frequent, sparse)
            return whole, None, None, None, None, None
        rows, felt = ids.flatten(), gradient.reshape(-1, gradient.shape[-1])
        learning = rows != padding
        if not bool(learning.all()):
            rows, felt = rows[learning], felt[learning]
        used.note(table, rows, felt)
        return None, None, None, None, None, None


@contextmanager
def sparse_embedding_gradients(wanted: bool) -> Iterator[SparseEmbeddingGradients]:
    """Within the block every embedding on the CPU notes what it feels; `add` comes after each backward pass.

    Hooks on the gradients of tables are not called.
    """
    used = SparseEmbeddingGradients()
    if not wanted:
        yield used
        return

    def lookup(
        table: torch.Tensor, ids: torch.Tensor, padding: int = -1, frequent: bool = False, sparse: bool = False
    ) -> torch.Tensor:
        return _Lookup.apply(table, ids, padding, frequent, sparse, used)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]

    with replaced_kernel("embedding", lookup, "AutogradCPU"):
        yield used
