"""Hugging Face's Trainer on the same job, as the example scripts of transformers set it up.

`defaults`: rows in random order, evaluation in batches of 8. `best`: what a user gains without writing code, batches of
rows of like length in training, larger ones in evaluation, where the rows stand in the order of their lengths. `tuned`:
the same with each step in four passes, which a user finds by trying, for shorter rows share a pass with their like.
`textbook`: what Trainer would train is trained by the loop of `textbook.py` instead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import textbook
from benchmarks.job import Job, validation_loss
from benchmarks.trainer_task import Task

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from transformers import Trainer

DEFAULT_BATCH = 8
PASSES = {"tuned": 4}
"""Forward passes of a step, where it is more than one."""


def trainer(job: Job, how: str) -> dict[str, float]:
    """Train, evaluate and save; the score is by this project's metrics."""
    from transformers import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    task, best, by_hand = task_of(job), how in ("best", "tuned"), how == "textbook"
    if by_hand:
        textbook.pad_to_the_longest(task.collator, job.model.max_tokens)
    order = _longest_first(task.validation) if best else np.arange(len(task.validation))
    batch = job.best_batch if best else job.params.train.batch_size if by_hand else DEFAULT_BATCH
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        hf, clock = built(job, task, folder, best and job.groups, batch, PASSES.get(how, 1))
        learned = textbook.train(hf, job.params.train) if by_hand else _train(hf, clock)
        begun = time.perf_counter()
        predictions = task.predict(hf, task.validation.select(order))
        ended = time.perf_counter()
        hf.save_model()
        whole = time.perf_counter() - started
    tokens = sum(len(row) for row in task.train["input_ids"])
    if task.targets:
        tokens += sum(len(row) for row in task.train["labels"])
    rows = job.rows("validation")
    found = None if predictions is None else _in_order(predictions, order, task.validation)
    return {
        "tokens_per_second": tokens * job.params.train.epochs / learned,
        "evaluated_per_second": len(rows) / (ended - begun),
        "whole_seconds": whole,
        "validation_loss": validation_loss(job, hf.model),
        job.params.metric: _score(job, rows, found, hf.model),
    }


def _train(hf: Trainer, clock: Any) -> float:
    """Seconds of the steps."""
    hf.train()
    hf.args.train_sampling_strategy = "random"  # evaluation would permute its rows
    return float(clock.seconds)


def task_of(job: Job) -> Task:
    """What the family of a case adds to Trainer."""
    from benchmarks import trainer_answers, trainer_labels, trainer_text

    tasks: dict[str, Callable[[Job], Task]] = {
        "sentiment": trainer_labels.sentiment,
        "ner": trainer_labels.ner,
        "question_answering": trainer_answers.question_answering,
        "summarization": trainer_text.writing,
        "translation": trainer_text.writing,
        "causal_lm": trainer_text.causal_lm,
        "masked_lm": trainer_text.masked_lm,
    }
    return tasks[job.params.family.name](job)


def built(job: Job, task: Task, folder: str, grouped: bool, batch: int, passes: int = 1) -> tuple[Trainer, Any]:
    """Trainer for a case, evaluating in such batches, and its clock."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments, set_seed

    params = job.params.train
    set_seed(params.seed)
    arguments, kind = (Seq2SeqTrainingArguments, Seq2SeqTrainer) if task.generates else (TrainingArguments, Trainer)
    settings = arguments(
        folder,
        per_device_train_batch_size=params.batch_size // passes,
        gradient_accumulation_steps=passes,
        per_device_eval_batch_size=batch,
        num_train_epochs=params.epochs,
        learning_rate=params.learning_rate,
        weight_decay=params.weight_decay,
        warmup_steps=params.warmup_fraction,
        lr_scheduler_type=params.schedule,
        train_sampling_strategy="group_by_length" if grouped else "random",
        bf16=job.params.runtime.precision == "bf16",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=params.seed,
        use_cpu=True,
        **task.settings,
    )
    clock = _clock()
    made = kind(
        task.load(),
        settings,
        task.collator,
        train_dataset=task.train,
        eval_dataset=task.validation,
        processing_class=task.tokenizer,
        callbacks=[clock],
    )
    return made, clock


def _clock() -> Any:
    """A callback with the seconds of the steps, from the first to the last one."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        seconds = 0.0

        def on_train_begin(self, *others: Any, **more: Any) -> None:
            self.started = time.perf_counter()

        def on_train_end(self, *others: Any, **more: Any) -> None:
            self.seconds = time.perf_counter() - self.started

    return Clock()


def _longest_first(examples: Dataset) -> np.ndarray:
    return np.argsort([-len(ids) for ids in examples["input_ids"]], kind="stable")


def _in_order(predictions: Sequence[Any], order: np.ndarray, examples: Dataset) -> list[Any]:
    """Predictions of examples as those of rows; what is one per row already stays as it is."""
    if "row" in examples.column_names:
        return list(predictions)
    found: list[Any] = [None] * len(order)
    for at, prediction in zip(order, predictions, strict=True):
        found[at] = prediction
    return found


def _score(job: Job, rows: pd.DataFrame, predictions: Sequence[Any] | None, model: Any) -> float:
    """The first metric; of a language model by this project's evaluation, because losses over other cuts, and other
    hidden words, do not compare."""
    from apf_tasks.evaluation.predictor import Placement, Predictor, metric_scores, predict_rows
    from apf_tasks.examples import Examples
    from apf_tasks.family import get_family
    from apf_tasks.models.pretrained import load_base
    from apf_tasks.runtime.devices import choose_precision

    family, names = get_family(job.params.family), job.train.label_names
    if predictions is None:
        place = Placement(model.device, choose_precision(job.params.runtime, model.device))
        network = Predictor(model, load_base(job.folder, job.model), family, names, place)
        found = predict_rows(network, Examples.of(job.validation), rows, {})
        predictions = [p["prediction"] for p in found]
    statistics = family.statistics(family.reference(rows), predictions, names)
    return metric_scores(family, statistics)[job.params.metric]
