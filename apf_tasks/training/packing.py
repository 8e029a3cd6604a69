"""Whether a model keeps packed examples apart."""

from __future__ import annotations

import numpy as np
import torch

from apf_tasks.data.batching import collate, collate_packed
from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.examples import Examples
from apf_tasks.training.step_loader import Batch

PACKED_TOLERANCE = 1e-5
"""Relative difference of a packed and a padded gradient that rounding explains."""


def supports_packing(network: Predictor, examples: Examples) -> bool:
    """Whether three short examples have the same gradient packed into one sequence as padded in a batch.

    An architecture that counts positions on, or attends beyond an example, is found out here: their losses differ
    little, for a model that has learned little, but not the gradient of the loss at the embeddings.
    """
    columns = examples.take(np.argsort(examples.lengths, kind="stable")[:3])
    lengths = [len(ids) for ids in columns["input_ids"]]
    if sum(lengths) > network.base.max_tokens:
        return False
    pad_id, device = network.base.pad_id, network.place.device
    network.model.train(False)
    try:
        rows = _embedding_gradient(network, collate(columns, pad_id, device))
        alone = torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])  # (T of all, H)
        packed = _embedding_gradient(network, collate_packed(columns, [list(range(len(lengths)))], pad_id, device))[0]
    except (RuntimeError, ValueError, TypeError):
        return False
    return bool((alone - packed).norm() <= PACKED_TOLERANCE * alone.norm())


def _embedding_gradient(network: Predictor, batch: Batch) -> torch.Tensor:
    """The gradient of the loss at the embeddings of a batch, (B, T, H)."""
    seen: list[torch.Tensor] = []
    embeddings = network.model.get_input_embeddings()
    with embeddings.register_forward_hook(lambda module, given, out: seen.append(out)):
        loss = network.family.loss(network.model, batch)
    return torch.autograd.grad(loss, seen[-1])[0]
