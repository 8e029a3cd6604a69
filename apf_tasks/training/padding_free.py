"""Whether a model can be trained without padding: tried before its training."""

from __future__ import annotations

import logging

import numpy as np
import torch

from apf_tasks.data.batching import collate
from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.examples import Columns, Examples
from apf_tasks.training.attention import Lengths, PaddingFree, UnsupportedAttentionError, padding_free

logger = logging.getLogger("apf")

TOLERANCE = 1e-5
"""Relative difference of two gradients that rounding explains."""
TRIED = 3
"""Examples, of different lengths where there are some."""


def try_padding_free(network: Predictor, examples: Examples) -> PaddingFree | None:
    """The model prepared, where its gradient without padding is that of padded rows; None, and said, where it is not.

    An architecture in which rows meet elsewhere than in its attention is found out here: their losses differ little,
    for a model that has learned little, but not the gradient of the embeddings.
    """
    try:
        free = padding_free(network.model)
    except UnsupportedAttentionError as error:
        _said(str(error))
        return None
    try:
        differs = _difference(network, free, examples)
    except (RuntimeError, ValueError, TypeError) as error:
        differs, found = np.inf, str(error).splitlines()[0][:200]
    else:
        found = f"its gradient differs by {differs:.1e}"
    if differs <= TOLERANCE:
        return free
    free.remove()
    _said(found)
    return None


def _said(found: str) -> None:
    logger.info("           trained with padding: %s", found)


def _difference(network: Predictor, free: PaddingFree, examples: Examples) -> float:
    """Relative difference of the gradients of the embeddings of a few short examples, with padding and without."""
    _, shortest = np.unique(examples.sizes, return_index=True)
    columns = examples.take(shortest[:TRIED] if len(shortest) > 1 else np.arange(min(TRIED, len(examples))))
    batch = collate(columns, network.base.pad_id, network.place.device)
    network.model.train(False)
    padded = _embedding_gradient(network, batch)
    with free.batch(batch, lengths_of(columns)):
        without = _embedding_gradient(network, batch)
    return float((without - padded).norm() / padded.norm())


def lengths_of(columns: Columns) -> Lengths:
    """Tokens of each example, and its labels."""
    return {name: [len(values) for values in columns[name]] for name in ("input_ids", "labels")}


def _embedding_gradient(network: Predictor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The gradient of the loss at the embeddings, (V, H)."""
    (weight,) = network.model.get_input_embeddings().parameters()
    return torch.autograd.grad(network.family.loss(network.model, batch), weight)[0]
