"""From hidden states to the loss. Between them lie the logits, V numbers per position: they are made for labelled
positions only, and never for more of them at a time than `LOGITS_AT_ONCE` allows.

P labelled positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = 1 << 24
"""Numbers of one piece of logits: 64 MiB in float32."""
HEADS = (
    ("cls",),  # BERT, DeBERTa
    ("lm_head",),  # RoBERTa; the linear layer of most decoders
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),  # DistilBERT
    ("generator_predictions", "generator_lm_head"),  # ELECTRA
    ("head", "decoder"),  # ModernBERT
)
"""Attributes that, one after the other, make logits of the hidden states; a model's own forward is the judge."""
_heads: WeakKeyDictionary[PreTrainedModel, Head | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class Head:
    """What makes logits (P, V) of hidden states (P, H)."""

    layers: Sequence[Callable[[torch.Tensor], torch.Tensor]]
    """One after the other; none where the states are logits already."""
    vocabulary: int
    scale: float = 1.0
    cap: float | None = None
    """Of what some architectures do to their logits: Cohere, Granite, Gemma 2 (Gemma Team 2024, section 2)."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits = reduce(lambda x, layer: layer(x), self.layers, states)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()

    def split(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """Pieces of (P, ...) whose logits may be in memory together."""
        return (tensor[at : at + self._at_once] for at in range(0, len(tensor), self._at_once))

    @property
    def _at_once(self) -> int:
        return max(1, LOGITS_AT_ONCE // self.vocabulary)

    def summed_loss(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the logits of `states` (P, H) with `targets` (P,), summed: a scalar with gradient."""
        import torch
        from torch.utils.checkpoint import checkpoint

        if len(targets) and (last := self._last_layer(states)) is not None:
            return _fused(Head(self.layers[:-1], self.vocabulary)(states), last, targets, self._at_once)
        pieces = list(zip(self.split(states), self.split(targets), strict=True))
        if len(pieces) < 2:
            return self._loss(states, targets)
        # the backward pass makes the logits of a piece again: kept, they would all be in memory after all
        return torch.stack([checkpoint(self._loss, s, t, use_reentrant=False) for s, t in pieces]).sum()

    def _loss(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        return F.cross_entropy(self(states).float(), targets, reduction="sum")

    def _last_layer(self, states: torch.Tensor) -> torch.nn.Linear | None:
        """The layer that torch can make one with the loss: linear, whole on this rank, and nothing comes after it.

        Its sums are float32, for which a CPU would convert all of bfloat16.
        """
        import torch

        from apf_tasks.sharding import is_divided

        last = self.layers[-1] if self.layers else None
        if not isinstance(last, torch.nn.Linear) or is_divided(last.weight) or self.scale != 1 or self.cap:
            return None
        kind = states.device.type
        computed = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        return last if kind == "cuda" or (kind == "cpu" and computed == torch.float32) else None


def _fused(states: torch.Tensor, layer: torch.nn.Linear, targets: torch.Tensor, at_once: int) -> torch.Tensor:
    """Cross-entropy by torch, which makes the gradient of a piece along with its logits: no logits are made again."""
    import torch
    import torch.nn.functional as F

    weight: torch.Tensor = layer.weight
    bias: torch.Tensor | None = layer.bias
    kind = states.device.type
    if torch.is_autocast_enabled(kind):  # which does not know this function
        dtype = torch.get_autocast_dtype(kind)
        states, weight, bias = states.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    pieces = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=at_once)
    return F.linear_cross_entropy(states, weight, targets, linear_bias=bias, reduction="sum", options=pieces).float()


def head_of(model: PreTrainedModel) -> Head | None:
    """What makes logits (P, V) of hidden states (P, H), tried against the model's own forward; None if nothing does."""
    if model not in _heads:
        _heads[model] = next((head for head in _possible_heads(model) if _agrees(model, head)), None)
    return _heads[model]


def _possible_heads(model: PreTrainedModel) -> Iterator[Head]:
    config, modules = model.config, dict(model.named_children())
    chains = [[modules[name] for name in names] for names in HEADS if all(name in modules for name in names)]
    outputs = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    for chain in [*chains, *([[outputs]] if outputs is not None else [])]:
        yield Head(chain, int(config.vocab_size), scale, getattr(config, "final_logit_softcapping", None))


def _agrees(model: PreTrainedModel, head: Head) -> bool:
    """Whether body and head, one after the other, give the logits of the whole model for a few tokens."""
    import torch

    ids = torch.arange(4, device=model.device)[None, :]
    training = model.training
    model.train(False)
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            wanted = model(input_ids=ids).logits
            found = head(model.base_model(input_ids=ids).last_hidden_state)
        return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(training)
