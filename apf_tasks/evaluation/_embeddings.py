"""Texts as a registered model sees them, and how far apart two sets of them are. N texts, H dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from apf_tasks.data.batching import collate, micro_batches
from apf_tasks.evaluation.predictor import EVALUATION_TOKENS, Predictor
from apf_tasks.evaluation.registered.scores import load_served
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.devices import autocast

PERMUTATIONS = 500


def embed(uri: str, texts: Sequence[str], runtime: RuntimeParams) -> np.ndarray:
    """The mean of the last hidden states of each text (N, H), of an encoder if there is one. Raises RegistryError."""
    network = load_served(uri, runtime).network
    network.model.train(False)
    tokenizer, most = network.base.tokenizer, EVALUATION_TOKENS[network.place.device.type]
    ids = tokenizer(list(texts), truncation=True, max_length=network.base.max_tokens, verbose=False)["input_ids"]
    sizes = np.array([len(row) for row in ids])
    cuts = micro_batches(np.flatnonzero(sizes), sizes, most)  # a text without tokens stays at 0
    parts = [_embed_batch(network, [ids[i] for i in cut]) for cut in cuts]
    found = np.zeros((len(ids), parts[0].shape[1]), dtype=np.float32)
    for cut, states in zip(cuts, parts, strict=True):
        found[cut] = states
    return found


@torch.inference_mode()
def _embed_batch(network: Predictor, ids: list[list[int]]) -> np.ndarray:
    model, place = network.model, network.place
    batch = collate({"input_ids": ids}, network.base.pad_id, place.device)
    part = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    with autocast(place.device, place.dtype):
        states = part(**batch).last_hidden_state.float()
    weights = batch["attention_mask"][..., None].float()
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
