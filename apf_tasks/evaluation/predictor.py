"""A model with all that is needed to use it, and what it predicts for rows.

Used alike in validation, in the test and when the model is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from apf_tasks.data.batching import collate, micro_batches
from apf_tasks.examples import Examples
from apf_tasks.family import Family, Predict, Prediction, Thresholds, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.devices import autocast, choose_device, choose_precision, use_tf32
from apf_tasks.runtime.ranks import SINGLE_PROCESS, Ranks, current_ranks
from apf_tasks.runtime.sharding import unsharded

EVALUATION_TOKENS = {"cpu": 1024, "mps": 16384, "cuda": 65536}
"""Padded tokens per forward pass without gradients. On a CPU, what stays in its caches: 4,096 were a tenth slower."""
WRITING_TOKENS = {"cpu": 16384, "mps": 65536, "cuda": 262144}
"""The same where text is written: a step costs about the same for one row as for many."""
EXAMPLES_AT_ONCE = 2048
"""Examples sorted by length together: what is in memory at a time does not grow with the rows."""


@dataclass(frozen=True)
class Placement:
    """Where and how precisely to compute."""

    device: torch.device
    dtype: torch.dtype
    ranks: Ranks = SINGLE_PROCESS
    sharded: bool = False
    """Whether the ranks share one copy of the model: all of them make every forward pass at the same time."""


@dataclass(frozen=True)
class Predictor:
    """A model in use."""

    model: PreTrainedModel
    base: BaseModelInfo
    family: Family
    label_names: tuple[str, ...]
    place: Placement


def load_predictor(
    folder: Path, model: ModelParams, family: FamilyParams, label_names: Sequence[str], runtime: RuntimeParams
) -> Predictor:
    """The model in `folder` with the head of the family, on the device that the params ask for."""
    functions = get_family(family)
    device = choose_device(runtime)
    base = load_base(folder, model)
    network = functions.load_model(folder, model, label_names)
    if network.device.type != device.type:  # fake tensors cannot be moved to where they are
        network = network.to(device)  # type: ignore[arg-type]
    if network.config.pad_token_id is None:
        network.config.pad_token_id = base.pad_id
    place = Placement(
        device, choose_precision(runtime, device), current_ranks(), runtime.shard and current_ranks().count > 1
    )
    use_tf32(device, place.dtype)
    return Predictor(network, base, functions, tuple(label_names), place)


def predict_examples(network: Predictor, examples: Examples, answering: bool) -> list[list[Prediction]]:
    """Per row the predictions of its examples, in their order; computed longest first, so little is padding.

    `answering`: with all that the family's `answer` gives.
    """
    network.model.train(False)
    family = network.family
    predict = (family.answer if answering else None) or family.predict
    pieces: list[list[Prediction]] = [[] for _ in range(int(examples.rows.max()) + 1)]
    writes = family.generates and (answering or family.answer is None)
    scoring_tokens = EVALUATION_TOKENS[network.place.device.type]
    most = WRITING_TOKENS[network.place.device.type] if writes else scoring_tokens
    for start in range(0, len(examples), EXAMPLES_AT_ONCE):
        chunk = np.arange(start, min(start + EXAMPLES_AT_ONCE, len(examples)))
        found: dict[int, Prediction] = {}
        while not found:
            try:
                found = _predict_together(network, predict, examples, _passes(examples, chunk, most, scoring_tokens))
            except torch.OutOfMemoryError:
                if most <= int(examples.sizes[chunk].max()) or network.place.ranks.count > 1:
                    raise
                most //= 2
        for i in chunk:
            pieces[examples.rows[i]].append(found[int(i)])
    return pieces


def _passes(examples: Examples, chunk: np.ndarray, most: int, scoring_tokens: int) -> list[np.ndarray]:
    """Examples of like length together; those with a prompt to continue among themselves, for a pass writes as long for
    one of them as for many. The others of these are judged alone, at most `judged` tokens at a time."""
    asks = np.isin(chunk, examples.with_prompt)
    least = min(most, scoring_tokens) if len(examples.with_prompt) else most
    return [*micro_batches(chunk[asks], examples.sizes, most), *micro_batches(chunk[~asks], examples.sizes, least)]


def _predict_together(
    network: Predictor, predict: Predict, examples: Examples, batches: list[np.ndarray]
) -> dict[int, Prediction]:
    """Example -> its prediction. Each rank computes a part of the batches, and is told the others'."""
    ranks = SINGLE_PROCESS if network.place.sharded else network.place.ranks
    mine: dict[int, Prediction] = {}
    for i in ranks.partition([int(examples.sizes[batch].sum()) for batch in batches]):
        mine |= zip(batches[i].tolist(), _predict_batch(network, predict, examples, batches[i]), strict=True)
    return {i: prediction for part in ranks.gather(mine) for i, prediction in part.items()}


def _predict_batch(network: Predictor, predict: Predict, examples: Examples, indices: np.ndarray) -> list[Prediction]:
    columns, family, place = examples.take(indices), network.family, network.place
    if family.mask is not None:
        columns = family.mask(columns, network.base, ())
    if not family.needs_labels:
        columns.pop("labels")
    batch = collate(columns, network.base.pad_id, place.device)
    # FSDP gathers weights into tensors that the next training pass uses too
    without_gradients = torch.no_grad if place.sharded else torch.inference_mode
    with without_gradients(), unsharded(network.model), autocast(place.device, place.dtype):
        return predict(network.model, batch, network.base, network.label_names)


def predict_rows(
    network: Predictor, examples: Examples, rows: pd.DataFrame, settings: Thresholds, answering: bool = True
) -> list[Prediction]:
    """The prediction of every row, with the decision settings that validation chose; `answering` as above."""
    return network.family.merge(rows, predict_examples(network, examples, answering), network.base, settings)


def predict_and_tune(
    network: Predictor, examples: Examples, rows: pd.DataFrame
) -> tuple[list[Prediction], dict[str, float]]:
    """The predictions of the validation rows, and the decision settings that suit them best."""
    family = network.family
    pieces = predict_examples(network, examples, answering=False)
    predictions = family.merge(rows, pieces, network.base, {})
    if family.tune is None:
        return predictions, {}
    settings = family.tune(family.reference(rows), predictions)
    return family.merge(rows, pieces, network.base, settings), settings


def row_statistics(
    family: Family, references: Sequence[Any], predictions: Sequence[Prediction], names: Sequence[str]
) -> Any:
    """Per-row statistics of predictions, (N, K)."""
    return family.statistics(references, [p["prediction"] for p in predictions], names)


def metric_scores(family: Family, statistics: np.ndarray) -> Mapping[str, float]:
    """Metric -> score over all rows."""
    return {name: float(value) for name, value in family.scores(statistics.sum(axis=0)).items()}
