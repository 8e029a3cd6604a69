"""From tokens to the loss of those that are labels, for every family whose labels are tokens.

Between the hidden states and the loss lie the logits, V numbers per position. They are made for labelled positions
only, and never for more of them at a time than `LOGITS_AT_ONCE` allows.

B examples, S positions that may have a label, P that have one, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from apf_tasks.examples import IGNORE_INDEX

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

T = TypeVar("T")
LOGITS_AT_ONCE = 1 << 24
"""Numbers of one piece of logits: 64 MiB in float32."""
HEADS = (
    ("cls",),  # BERT, DeBERTa
    ("lm_head",),  # RoBERTa; the linear layer of most models that write
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
    """Of what some architectures do to their logits: Cohere, Granite, T5, Gemma 2 (Gemma Team 2024, section 2)."""
    bias: torch.Tensor | None = None
    """(V,), added to all logits and never trained: BART and its kin."""

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits = reduce(lambda x, layer: layer(x), self.layers, states)
        if self.scale != 1:
            logits = logits * self.scale
        if self.bias is not None:
            logits = logits + self.bias.to(logits)
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

        from apf_tasks.families._language_model.linear_cross_entropy import linear_cross_entropy

        if len(targets) and (last := self._last_layer()) is not None:
            before = Head(self.layers[:-1], self.vocabulary, self.scale)
            return linear_cross_entropy(before(states), last, self.bias, targets, self._at_once)
        pieces = list(zip(self.split(states), self.split(targets), strict=True))
        if len(pieces) < 2:
            return self._loss(states, targets)
        # the backward pass makes the logits of a piece again: kept, they would all be in memory after all
        return torch.stack([checkpoint(self._loss, s, t, use_reentrant=False) for s, t in pieces]).sum()

    def _loss(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        return F.cross_entropy(self(states).float(), targets, reduction="sum")

    def _last_layer(self) -> torch.nn.Linear | None:
        """The layer that can be made one with the loss: linear, whole on this rank, and nothing comes after it."""
        import torch

        from apf_tasks.runtime.sharding import is_dtensor

        last = self.layers[-1] if self.layers else None
        if not isinstance(last, torch.nn.Linear) or is_dtensor(last.weight) or self.cap:
            return None
        if last.bias is not None and (self.scale != 1 or self.bias is not None):
            return None
        return last


def summed_loss(model: PreTrainedModel, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the positions of `labels` (B, S) that have one, a scalar with gradient.

    The model's first S positions are judged.
    """
    at = labels != IGNORE_INDEX
    return with_states(model, inputs, at, lambda states, head: head.summed_loss(states, labels[at]))


def with_states(
    model: PreTrainedModel, inputs: dict[str, Any], at: torch.Tensor, use: Callable[[torch.Tensor, Head], T]
) -> T:
    """What `use` makes of the hidden states at the positions of `at` (B, S), (P, H), and of the head over them.

    Of a model whose head is not known, it gets the logits themselves, (P, V).
    """
    from apf_tasks.runtime.sharding import as_forward

    head, places = head_of(model), at.shape[1]
    if head is None:
        logits = model(**inputs).logits[:, :places][at]
        return use(logits, Head((), logits.shape[-1]))
    return as_forward(model, lambda: use(_body(model, inputs)[:, :places][at], head))


def _body(model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """The states (B, S, H) of which the head makes logits."""
    if model.base_model is not model:
        states: torch.Tensor = model.base_model(**inputs).last_hidden_state
        return states
    # T5 and its kin, where no module holds encoder and decoder alone
    halves: Any = model
    read = {name: value for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
    encoded = halves.encoder(**read).last_hidden_state
    return halves.decoder(  # type: ignore[no-any-return]
        input_ids=inputs["decoder_input_ids"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=inputs.get("attention_mask"),
        use_cache=False,
    ).last_hidden_state


def head_of(model: PreTrainedModel) -> Head | None:
    """What makes logits (P, V) of hidden states (P, H), tried against the model's own forward; None if nothing does."""
    if model not in _heads:
        _heads[model] = next((head for head in _possible_heads(model) if _agrees(model, head)), None)
    return _heads[model]


def _possible_heads(model: PreTrainedModel) -> Iterator[Head]:
    config, modules = model.config, dict(model.named_children())
    chains = [[modules[name] for name in names] for names in HEADS if all(name in modules for name in names)]
    outputs = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    vocabulary = int(getattr(config, "vocab_size", 0)) or len(outputs.weight)  # a model of two has two vocabularies
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    width, bias = getattr(config, "d_model", None), getattr(model, "final_logits_bias", None)
    scales = [scale, width**-0.5] if width and model.base_model is model else [scale]  # T5 with tied embeddings
    cap, bias = getattr(config, "final_logit_softcapping", None), None if bias is None else bias.flatten()
    for chain in [*chains, *([[outputs]] if outputs is not None else [])]:
        yield from (Head(chain, vocabulary, tried, cap, bias) for tried in scales)


def _agrees(model: PreTrainedModel, head: Head) -> bool:
    """Whether body and head, one after the other, give the logits of the whole model for a few tokens."""
    import torch

    from apf_tasks.runtime.sharding import as_forward, as_gathered

    ids = torch.arange(4, device=model.device)[None, :]
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    training = model.training
    model.train(False)
    try:
        with torch.no_grad(), as_gathered(model):
            wanted = model(**inputs).logits
            found = as_forward(model, lambda: head(_body(model, inputs)))
        return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(training)
