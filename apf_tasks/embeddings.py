"""Texts as a registered model sees them, and how far apart two sets of them are. N texts, H dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from apf_tasks.contender import load_served
from apf_tasks.network import EVALUATION_TOKENS, Network
from apf_tasks.params import RuntimeParams
from apf_tasks.runtime import autocast

PERMUTATIONS = 500


def embed(uri: str, texts: Sequence[str], runtime: RuntimeParams) -> np.ndarray:
    """The mean of the last hidden states of each text (N, H), of an encoder if there is one. Raises RegistryError."""
    network = load_served(uri, runtime).network
    network.model.train(False)
    ids = network.base.tokenizer(list(texts), truncation=True, max_length=network.base.max_tokens, verbose=False)[
        "input_ids"
    ]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    most, start = EVALUATION_TOKENS[network.place.device.type], 0
    found = np.zeros((len(ids), 0), dtype=np.float32)
    while start < len(order):
        end = start + 1
        while end < len(order) and len(ids[order[end]]) * (end + 1 - start) <= most:
            end += 1
        states = _embed_batch(network, [ids[i] for i in order[start:end]])
        if not found.shape[1]:
            found = np.zeros((len(ids), states.shape[1]), dtype=np.float32)
        found[order[start:end]] = states
        start = end
    return found


@torch.inference_mode()
def _embed_batch(network: Network, ids: Sequence[Sequence[int]]) -> np.ndarray:
    model, place = network.model, network.place
    longest = max(1, *map(len, ids))
    tokens = torch.full((len(ids), longest), network.base.pad_id, device=place.device)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    part = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    with autocast(place.device, place.dtype):
        states = part(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
    weights = mask[..., None].float()
    return np.asarray(((states * weights).sum(1) / weights.sum(1).clamp(min=1)).cpu().numpy())


def energy_distance(old: np.ndarray, new: np.ndarray, seed: int) -> tuple[float, float]:
    """(H, p). H is 0 when both come from one distribution and 1 when nothing but the sets differs; p by permutation.

    H = (2 E|X - Y| - E|X - X'| - E|Y - Y'|) / 2 E|X - Y|, over pairs of different rows; below 0 by chance counts as 0.
    Székely & Rizzo 2013, Energy statistics: A class of statistics based on distances, JSPI 143.
    """
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(np.concatenate([old, new]).astype(np.float64)))
    is_new = np.array([False] * len(old) + [True] * len(new))
    found = _inhomogeneity(distances, is_new)
    random = np.random.default_rng(seed)
    larger = sum(_inhomogeneity(distances, random.permutation(is_new)) >= found for _ in range(PERMUTATIONS))
    return max(0.0, found), (1 + larger) / (1 + PERMUTATIONS)


def _inhomogeneity(distances: np.ndarray, is_new: np.ndarray) -> float:
    side = is_new.astype(float)
    towards = distances @ side  # of every row, to all new ones
    among_new, across = float(towards @ side), float(towards @ (1 - side))
    n, m = len(side) - side.sum(), side.sum()
    among_old = float(distances.sum()) - 2 * across - among_new
    between = across / (n * m)
    if not between:
        return 0.0
    within = among_new / max(1, m * (m - 1)) + among_old / max(1, n * (n - 1))
    return float((2 * between - within) / (2 * between))
