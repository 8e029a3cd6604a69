"""The layers of a model without padding: the tokens of all rows behind each other, attention within each row.

Padded rows go into the model and come out of it as ever. Before the first layer of a stack (an encoder, a decoder) the
padding is taken out, behind the last one it is put back, so that embeddings and heads know nothing of it. In between
the hidden states are (1, N, H), and attention is computed by a function that is registered with transformers'
attention interface.

B rows, T tokens of the longest, N tokens of all rows, H hidden size, A heads, D numbers of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import create_position_bias_mask, repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_layers import GradientCheckpointingLayer

NAME = "apf_padding_free"
"""Under which transformers finds the attention function, and that for masks."""
PER_TOKEN = (2, 3)
"""Dimensions of tensors that a layer is given for each token: (B, T) or (B, T, ...)."""
Lengths = Mapping[str, Sequence[int]]
"""Tokens of each row, by column: `input_ids`, `labels`."""
GENERATES_BIAS = "compute_bias"
"""The method by which T5 and its kin make the position bias of all layers."""


class UnsupportedAttentionError(ValueError):
    """An architecture attends in a way that is not computed here."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch, as one stack of layers sees them, filled up on the right."""

    lengths: tuple[int, ...]
    longest: int
    """Tokens of a row, padding included."""
    places: torch.Tensor
    """(N,): where the tokens stand among B * longest places."""

    @property
    def shape(self) -> tuple[int, int]:
        """(1, N)."""
        return 1, len(self.places)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(B, T)."""
        return len(self.lengths), self.longest

    def without_padding(self, tensor: torch.Tensor) -> torch.Tensor:
        """(B or 1, T, ...) -> (1, N, ...)."""
        whole = tensor.expand(len(self.lengths), *tensor.shape[1:])
        return whole.flatten(0, 1).index_select(0, self.places)[None]

    def padded(self, tensor: torch.Tensor) -> torch.Tensor:
        """(1, N, ...) -> (B, T, ...), zeros where there is no token."""
        shape = (*self.padded_shape, *tensor.shape[2:])
        return tensor.new_zeros(shape).flatten(0, 1).index_copy(0, self.places, tensor[0]).reshape(shape)

    def are_of(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor has something for each of their places."""
        if tensor.dim() not in PER_TOKEN:
            return False
        return tensor.shape[0] in (1, len(self.lengths)) and tensor.shape[1] == self.longest


def rows_of(lengths: Sequence[int], longest: int, device: torch.device) -> Rows:
    """Rows of so many tokens in a batch of so long rows."""
    places = np.concatenate([np.arange(length) + row * longest for row, length in enumerate(lengths)])
    return Rows(tuple(lengths), longest, torch.tensor(places, device=device))


@dataclass
class PaddingFree:
    """A model whose layers can compute without padding; outside of `batch` it computes as ever."""

    model: PreTrainedModel
    encoder: Rows | None = None
    decoder: Rows | None = None
    own: Rows | None = None
    """Of the stack whose layer is computed."""
    keys: Rows | None = None
    """Of the keys that this layer attends to."""
    attended: range | None = None
    """The rows, by their position, whose attention is computed by themselves now."""
    _handles: list[Any] = field(default_factory=list)

    @contextmanager
    def batch(self, batch: Mapping[str, torch.Tensor], lengths: Lengths) -> Iterator[None]:
        """Within the block the layers compute the tokens of `batch` alone, forwards and backwards."""
        global _active
        self.encoder = self.decoder = _rows(batch, lengths, "input_ids")
        if self.model.config.is_encoder_decoder:
            self.decoder = _rows(batch, lengths, "labels")
        _active = self
        try:
            yield
        finally:
            _active = self.encoder = self.decoder = self.own = self.keys = self.attended = None

    def hook(self, stack: nn.ModuleList, decodes: bool) -> None:
        """Have the layers of a stack compute without padding."""

        def before(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            hidden = given[0] if given else named["hidden_states"]
            rows = self.decoder if decodes else self.encoder
            mine = rows is not None and tuple(hidden.shape[:2]) == (
                rows.padded_shape if layer is stack[0] else rows.shape
            )
            self.own = self.keys = rows if mine else None  # a batch of another shape is somebody else's
            return None if self.own is None else self._without_padding(given, named, decodes)

        def behind(layer: nn.Module, given: Any, out: Any) -> Any:
            if self.own is None:
                return None
            states, *others = out if isinstance(out, tuple) else (out,)
            padded = self.own.padded(states)
            return (padded, *others) if isinstance(out, tuple) else padded

        for layer in stack:
            self._handles.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(stack[-1].register_forward_hook(behind))
        for module in stack.modules():
            if type(module).__name__.endswith("Attention"):
                self._handles.append(module.register_forward_pre_hook(self._attend, with_kwargs=True))
            if hasattr(module, GENERATES_BIAS):
                self._bound_bias(module)

    def remove(self) -> None:
        """Nothing of it is left in the model."""
        for handle in self._handles:
            handle.remove()
        self.model.set_attn_implementation("sdpa")

    def _without_padding(self, given: tuple[Any, ...], named: dict[str, Any], decodes: bool) -> Any:
        assert self.own is not None
        hidden = given[0] if given else named["hidden_states"]
        width = hidden.shape[-1]

        def without(value: Any, is_first: bool = False) -> Any:
            if isinstance(value, tuple):
                return tuple(without(one) for one in value)
            if not isinstance(value, torch.Tensor):
                return value
            foreign = decodes and not is_first and value.dim() == hidden.dim() and value.shape[-1] == width
            rows = self.encoder if foreign else self.own
            return rows.without_padding(value) if rows is not None and rows.are_of(value) else value

        found = tuple(without(value, at == 0) for at, value in enumerate(given))
        return found, {name: without(value, name == "hidden_states") for name, value in named.items()}

    def _attend(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Note whose keys a module attends to."""
        if self.own is None:
            return None
        other = named.get("key_value_states") is not None or named.get("encoder_hidden_states") is not None
        self.keys = self.encoder if other else self.own
        if other and "position_bias" in named and named["position_bias"] is None:
            return given, named | {"position_bias": self.own.places.new_zeros((1, 1, 1, 1))}  # T5 would make (N, N)
        return None

    def _bound_bias(self, module: Any) -> None:
        """A position bias depends on distances alone: that of the longest row has those of all others."""
        compute = module.compute_bias

        def compute_bias(query_length: int, key_length: int, **named: Any) -> torch.Tensor:
            longest = (query_length, key_length) if self.own is None else (max(self.own.lengths),) * 2
            return compute(*longest, **named)  # type: ignore[no-any-return]

        module.compute_bias = compute_bias
        self._handles.append(_Attribute(module, GENERATES_BIAS))


@dataclass(frozen=True)
class _Attribute:
    """One that hides a method of the class."""

    module: nn.Module
    name: str

    def remove(self) -> None:
        """The method is seen again."""
        delattr(self.module, self.name)


_active: PaddingFree | None = None
"""Whose pass is computed. (The backward pass may recompute layers in another thread: no context variable.)"""


def padding_free(model: PreTrainedModel) -> PaddingFree:
    """Prepare a model. Raises UnsupportedAttentionError."""
    if model.config._attn_implementation != "sdpa":
        raise UnsupportedAttentionError(f"attention by {model.config._attn_implementation}")
    seq2seq = model.config.is_encoder_decoder
    ours = _stacks(model.get_encoder() if seq2seq else model)
    theirs = [stack for stack in _stacks(model) if not any(stack is one for one in ours)]
    if len(ours) != 1 or len(theirs) != int(seq2seq):
        raise UnsupportedAttentionError(f"{len(ours)} and {len(theirs)} stacks of layers")
    model.set_attn_implementation(NAME)
    free = PaddingFree(model)
    free.hook(ours[0], decodes=False)
    for stack in theirs:
        free.hook(stack, decodes=True)
    return free


def _stacks(model: nn.Module) -> list[nn.ModuleList]:
    """The layers of each encoder or decoder, in the order of the computation."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module))
    return [one for one in lists if all(isinstance(layer, GradientCheckpointingLayer) for layer in one)]


def _rows(batch: Mapping[str, torch.Tensor], lengths: Lengths, name: str) -> Rows:
    return rows_of(lengths[name], batch[name].shape[1], batch[name].device)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **how: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each row to itself, or to its row of the encoder: (1, A, N, D) -> (1, N, A, D)."""
    if _active is None or _active.own is None or _active.keys is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **how)
    own, keys = _active.own, _active.keys
    if how.get("softcap") is not None or how.get("s_aux") is not None:
        raise UnsupportedAttentionError(f"attention of {type(module).__name__}")
    if (groups := getattr(module, "num_key_value_groups", 1)) > 1:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    causal = how.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", getattr(module, "is_decoder", True))
    bias = how.get("position_bias")
    if bias is not None and bias.shape[-1] == 1:
        bias = None
    dropout, scaling, window = how.get("dropout", 0.0), how.get("scaling"), how.get("sliding_window")
    call = _Call(_active, dropout, scaling, causal and keys is own, bias, window)
    compute = _row_by_row if query.device.type == "cpu" else _padded
    return compute(_Attended(query, own), _Attended(key, keys), _Attended(value, keys), call), None


@dataclass(frozen=True)
class _Call:
    """How to attend."""

    free: PaddingFree
    dropout: float
    scaling: float | None
    causal: bool
    bias: torch.Tensor | None
    """(1, A, T, T), added to the scores."""
    window: int | None
    """A token sees those that are less far away than that."""

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None) -> Any:
        """(B, A, Tq, D) and (B, A, Tk, D) -> (B, A, Tq, D). `seen`: (B, 1, 1, Tk), the keys that are no padding."""
        causal, mask = self.causal, seen
        if self.window is not None and self.window < query.shape[2]:
            near = _near(query, key, self.window - 1).triu(1 - self.window)
            mask = near if mask is None else mask & near
        if causal and mask is not None:
            mask, causal = mask & _near(query, key, 0), False
        if self.bias is not None:
            bias = self.bias[:, :, : query.shape[2], : key.shape[2]]
            mask, causal = create_position_bias_mask(bias, mask, causal, query, key), False
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout, is_causal=causal, scale=self.scaling
        )


def _near(query: torch.Tensor, key: torch.Tensor, ahead: int) -> torch.Tensor:
    """(Tq, Tk): the keys up to so many places after the query."""
    return torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(ahead)


@dataclass(frozen=True)
class _Attended:
    """Queries, keys or values (1, A, N, D)."""

    tensor: torch.Tensor
    rows: Rows

    def of_each(self, counts: Sequence[int]) -> list[torch.Tensor]:
        """For so many rows of the same length at a time: (count, A, T, D)."""
        ends = np.cumsum(counts)
        sizes = [sum(self.rows.lengths[end - count : end]) for end, count in zip(ends, counts, strict=True)]
        parts = torch.split(self.tensor[0].transpose(0, 1), sizes)
        return [
            part.reshape(count, -1, *part.shape[1:]).transpose(1, 2) for part, count in zip(parts, counts, strict=True)
        ]

    def padded(self) -> torch.Tensor:
        """(B, A, T, D)."""
        return self.rows.padded(self.tensor.transpose(1, 2)).transpose(1, 2)


def _row_by_row(query: _Attended, key: _Attended, value: _Attended, call: _Call) -> torch.Tensor:
    """Neighbours of the same length together: best where rows are sorted by their length."""
    pairs = zip(query.rows.lengths, key.rows.lengths, strict=True)
    counts = [len(list(same)) for _, same in groupby(pairs)]
    found: list[torch.Tensor] = []
    start = 0
    for q, k, v in zip(query.of_each(counts), key.of_each(counts), value.of_each(counts), strict=True):
        call.free.attended = range(start, start := start + len(q))
        found.append(call.attend(q, k, v, None).transpose(1, 2).flatten(0, 1))
    call.free.attended = None
    return torch.cat(found)[None]


def _padded(query: _Attended, key: _Attended, value: _Attended, call: _Call) -> torch.Tensor:
    """All rows at once, padded for this operation alone."""
    lengths = torch.tensor(key.rows.lengths, device=query.tensor.device)
    seen = (torch.arange(key.rows.longest, device=lengths.device) < lengths[:, None])[:, None, None]
    found = call.attend(query.padded(), key.padded(), value.padded(), seen)
    return query.rows.without_padding(found.transpose(1, 2))


def _mask(*given: Any, **named: Any) -> torch.Tensor | None:
    """None for the rows of a pass: their attention needs no mask."""
    known = (_active.encoder, _active.decoder) if _active is not None else ()
    asked = (named["batch_size"], named["kv_length"])
    return None if any(rows and rows.padded_shape == asked for rows in known) else sdpa_mask(*given, **named)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
