"""Attention as GPUs compute it, for tensors without numbers: the matrix of all positions by all is never there whole.

On a CPU torch keeps that matrix where there is dropout; its memory-efficient kernel for CUDA does not (Rabe & Staats
2021, arXiv:2112.05682).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gpu_attention() -> Iterator[None]:
    """Within the block `scaled_dot_product_attention` is the operation of torch's memory-efficient kernel.

    The function itself is exchanged: a TorchFunctionMode would not be there when layers are computed again.
    """
    own = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = _efficient
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = own


def _efficient(  # noqa: PLR0913  # as torch has it
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Query (B, heads, T, width) and the like; with `enable_gqa` keys and values may have fewer heads."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    bias = None
    if attn_mask is not None:
        mask = attn_mask if attn_mask.is_floating_point() else torch.zeros(attn_mask.shape, dtype=query.dtype)
        bias = mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    found = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )
    return found[0]  # type: ignore[no-any-return]
