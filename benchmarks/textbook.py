"""The loop of the textbooks on the same job: every row padded to the longest allowed, rows in random order, Adam."""

from __future__ import annotations

import math
import tempfile
import time

import numpy as np

from benchmarks.job import Job
from benchmarks.trainer_side import built, measures, task_of


def textbook(job: Job) -> dict[str, float]:
    """Train, evaluate in batches of the same size and padding, save."""
    import torch
    from transformers import get_scheduler

    task, train = task_of(job), job.params.train
    if hasattr(task.collator, "padding"):
        task.collator.padding, task.collator.max_length = "max_length", job.model.max_tokens
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        hf, _ = built(job, task, folder, False, train.batch_size)
        model, batches = hf.model.train(), hf.get_train_dataloader()
        optimizer = torch.optim.Adam(model.parameters(), lr=train.learning_rate)
        steps = len(batches) * round(train.epochs)
        schedule = get_scheduler(train.schedule, optimizer, math.ceil(train.warmup_fraction * steps), steps)
        begun = time.perf_counter()
        for _ in range(round(train.epochs)):
            for batch in batches:
                optimizer.zero_grad()
                model(**batch).loss.backward()
                optimizer.step()
                schedule.step()
        learned = time.perf_counter() - begun
        begun = time.perf_counter()
        predictions = task.predict(hf, task.validation)
        evaluated = time.perf_counter() - begun
        hf.save_model()
        whole = time.perf_counter() - started
    return measures(job, task, learned, evaluated, whole, (predictions, np.arange(len(task.validation))), model)
