"""Answers in a context, as the example script run_qa does it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.job import Job
from benchmarks.trainer_task import Task

N_BEST = 20
"""Best beginnings and ends of a window that are combined: the script's default."""


def question_answering(job: Job) -> Task:
    """Windows over the context with a stride; the answer is the best legal pair of 20 beginnings and 20 ends."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer, DataCollatorWithPadding

    tokenizer, most = AutoTokenizer.from_pretrained(job.folder), job.params.family.max_answer_tokens  # type: ignore[attr-defined]
    contexts = job.rows("validation")["context"].tolist()

    def predict(trainer: Any, examples: Any) -> list[str]:
        starts, ends = trainer.predict(examples).predictions
        return _answers(starts, ends, examples["offsets"], examples["row"], contexts, most)

    return Task(
        load=partial(AutoModelForQuestionAnswering.from_pretrained, job.folder),
        tokenizer=tokenizer,
        train=_windows(job, tokenizer, "train"),
        validation=_windows(job, tokenizer, "validation"),
        collator=DataCollatorWithPadding(tokenizer),
        predict=predict,
        settings={"label_names": ["start_positions", "end_positions"]},
    )


def _windows(job: Job, tokenizer: Any, name: str) -> Any:
    from datasets import Dataset

    rows = job.rows(name)
    found = tokenizer(
        rows["question"].tolist(),
        rows["context"].tolist(),
        truncation="only_second",
        max_length=job.model.max_tokens,
        stride=job.params.family.stride,  # type: ignore[attr-defined]
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    columns: dict[str, Any] = {n: found[n] for n in ("input_ids", "token_type_ids", "attention_mask") if n in found}
    columns |= {"row": found["overflow_to_sample_mapping"], "offsets": [], "start_positions": [], "end_positions": []}
    for at, row in enumerate(columns["row"]):
        sides = found.sequence_ids(at)
        offsets = [
            pair if side == 1 else (-1, -1) for pair, side in zip(found["offset_mapping"][at], sides, strict=True)
        ]
        answer = rows["answers"].iloc[row][0]
        first = answer["answer_start"]
        start, end = _positions(offsets, first, first + len(answer["text"]))
        columns["offsets"].append([[int(a), int(b)] for a, b in offsets])
        columns["start_positions"].append(start)
        columns["end_positions"].append(end)
    return Dataset.from_dict(columns)


def _positions(offsets: list[tuple[int, int]], first: int, end: int) -> tuple[int, int]:
    """Tokens of the characters [first, end); (0, 0) when the window does not have all of them."""
    inside = [i for i, (a, b) in enumerate(offsets) if a >= 0 and b > first and a < end]
    whole = inside and offsets[inside[0]][0] <= first and offsets[inside[-1]][1] >= end
    return (inside[0], inside[-1]) if whole else (0, 0)


def _answers(
    starts: np.ndarray, ends: np.ndarray, offsets: Any, rows: list[int], contexts: list[str], most: int
) -> list[str]:
    """The span of the highest sum of logits over all windows of a row."""
    best: dict[int, tuple[float, str]] = {}
    for start, end, places, row in zip(starts, ends, offsets, rows, strict=True):
        size = len(places)
        firsts, lasts = np.argsort(-start[:size])[:N_BEST], np.argsort(-end[:size])[:N_BEST]
        for first in firsts.tolist():
            for last in lasts.tolist():
                if last < first or last - first >= most or places[first][0] < 0 or places[last][0] < 0:
                    continue
                value = float(start[first] + end[last])
                if value > best.get(row, (-np.inf, ""))[0]:
                    best[row] = value, contexts[row][places[first][0] : places[last][1]]
    return [best.get(row, (0.0, ""))[1] for row in range(len(contexts))]
