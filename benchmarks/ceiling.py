"""What part of the machine's matrix products a training reaches."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from apf_tasks.data.batching import collate
from apf_tasks.evaluation.predictor import load_predictor
from apf_tasks.examples import Examples
from apf_tasks.runtime.devices import autocast
from benchmarks.job import Job

COUNTED, SIZE, SECONDS = 16, 2048, 3.0


def flops_per_token(job: Job) -> float:
    """Of forward and backward passes of single rows, which have no padding, as torch counts them."""
    params = job.params
    network = load_predictor(job.folder, job.model, params.family, job.train.label_names, params.runtime)
    examples = Examples.of(job.train)
    chosen = np.linspace(0, len(examples) - 1, COUNTED).astype(int)
    pad, place = network.base.pad_id, network.place
    with FlopCounterMode(display=False) as counter, autocast(place.device, place.dtype):
        for index in chosen:
            columns = examples.take(np.array([index]))
            if network.family.mask is not None:
                columns = network.family.mask(columns, network.base, (0, 0))
            network.family.loss(network.model, collate(columns, pad, place.device)).backward()  # type: ignore[no-untyped-call]
    tokens = examples.lengths[chosen].sum()
    if network.base.is_encoder_decoder:
        tokens += sum(len(labels) for labels in examples.take(chosen)["labels"])
    return counter.get_total_flops() / float(tokens)


def ceiling(dtype: torch.dtype) -> float:
    """Operations per second of large square matrix products; the best of several seconds."""
    left, right = (torch.randn(SIZE, SIZE, dtype=dtype) for _ in range(2))
    best, ends = 0.0, time.perf_counter() + SECONDS
    while time.perf_counter() < ends:
        began = time.perf_counter()
        left @ right
        best = max(best, 2 * SIZE**3 / (time.perf_counter() - began))
    return best


def reached_at_most(job: Job) -> dict[str, float]:
    """Operations of a training per useful token, and those per second of matrix products in the job's precision."""
    dtype = torch.bfloat16 if job.params.runtime.precision == "bf16" else torch.float32
    return {"flops_per_token": flops_per_token(job), "ceiling": ceiling(dtype)}
