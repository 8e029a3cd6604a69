"""The loop of the textbooks: every row padded to the longest allowed, rows in random order, Adam, nothing clipped."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer

    from apf_tasks.params.train import TrainParams


def pad_to_the_longest(collator: Any, max_tokens: int) -> None:
    """Have a collator that pads do so to `max_tokens`."""
    if hasattr(collator, "padding"):
        collator.padding, collator.max_length = "max_length", max_tokens


def train(hf: Trainer, params: TrainParams) -> float:
    """Train the model of `hf` on its batches. Seconds of the steps."""
    import torch
    from transformers import get_scheduler

    model, batches = hf.model.train(), hf.get_train_dataloader()
    optimizer = torch.optim.Adam(model.parameters(), lr=params.learning_rate)
    steps = len(batches) * round(params.epochs)
    schedule = get_scheduler(params.schedule, optimizer, math.ceil(params.warmup_fraction * steps), steps)
    begun = time.perf_counter()
    for _ in range(round(params.epochs)):
        for batch in batches:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
            schedule.step()
    return time.perf_counter() - begun
