"""One label per text, and one per word, as the example scripts run_classification and run_ner do it."""

from __future__ import annotations

from functools import partial
from typing import Any

from apf_tasks.examples import IGNORE_INDEX
from benchmarks.job import Job
from benchmarks.trainer_task import Task


def sentiment(job: Job) -> Task:
    """Texts cut at `max_tokens`, padded to the longest of a batch."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    tokenizer, names = AutoTokenizer.from_pretrained(job.folder), job.train.label_names

    def encoded(name: str) -> Dataset:
        rows = job.rows(name)
        found = dict(tokenizer(rows["text"].tolist(), truncation=True, max_length=job.model.max_tokens))
        return Dataset.from_dict({**found, "labels": [names.index(label) for label in rows["label"]]})

    def predict(trainer: Any, examples: Dataset) -> list[str]:
        return [names[i] for i in trainer.predict(examples).predictions.argmax(-1)]

    return Task(
        load=partial(AutoModelForSequenceClassification.from_pretrained, job.folder, num_labels=len(names)),
        tokenizer=tokenizer,
        train=encoded("train"),
        validation=encoded("validation"),
        collator=DataCollatorWithPadding(tokenizer),
        predict=predict,
    )


def ner(job: Job) -> Task:
    """Words cut at `max_tokens`; the first piece of a word has its tag."""
    from datasets import Dataset
    from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

    from apf_tasks.families.ner.decoding import tag_names

    tokenizer, tags = AutoTokenizer.from_pretrained(job.folder), tag_names(job.train.label_names)
    number = {tag: i for i, tag in enumerate(tags)}

    def encoded(name: str) -> Dataset:
        rows = job.rows(name)
        words = [list(row) for row in rows["tokens"]]
        found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=job.model.max_tokens)
        labels = [_labels(found.word_ids(at), [number[tag] for tag in row]) for at, row in enumerate(rows["tags"])]
        return Dataset.from_dict({**found, "labels": labels, "words": [len(row) for row in words]})

    def predict(trainer: Any, examples: Dataset) -> list[list[str]]:
        from apf_tasks.evaluation.metrics.entities import repair_bio

        output = trainer.predict(examples)
        best = output.predictions.argmax(-1)  # (N, T)
        found = []
        for ids, labels, words in zip(best, output.label_ids, examples["words"], strict=True):
            known = [tags[i] for i in ids[labels != IGNORE_INDEX]]
            found.append(repair_bio([*known, *["O"] * (words - len(known))])[0])
        return found

    return Task(
        load=partial(AutoModelForTokenClassification.from_pretrained, job.folder, num_labels=len(tags)),
        tokenizer=tokenizer,
        train=encoded("train"),
        validation=encoded("validation"),
        collator=DataCollatorForTokenClassification(tokenizer),
        predict=predict,
    )


def _labels(words: list[int | None], tags: list[int]) -> list[int]:
    """Per token the tag of its word where it begins one."""
    before = [None, *words[:-1]]
    return [
        IGNORE_INDEX if word is None or word == last else tags[word] for word, last in zip(words, before, strict=True)
    ]
