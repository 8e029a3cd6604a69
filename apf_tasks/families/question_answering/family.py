"""Extractive question answering: the answer is a passage of the context, or there is none.

N rows, B windows, T tokens, M most tokens of an answer. A long context gives several windows; each says how probable
its spans and "no answer" are, and the row's answer is the best span of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from apf_tasks.examples import Columns
from apf_tasks.families.question_answering.answers import check
from apf_tasks.family import BaselineInputs, ExamplePredictions, Family, Prediction, Thresholds, model_inputs
from apf_tasks.params.base import PositiveInt
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.models.pretrained import BaseModelInfo

UNANSWERED = -1e4
"""Log-probability of the best span where a context has none, as that of an empty text."""
THRESHOLD = "threshold"


class QuestionAnsweringParams(FamilyParams):
    """Options of question answering."""

    language: Literal["en", "zh"] = "en"
    """How answers are compared: by SQuAD's rule for English (also for other languages with spaces) or by CMRC 2018's
    for Chinese."""
    stride: Annotated[int, Field(ge=0)] = 64
    """Tokens that neighbouring windows of a context share when it does not fit into `model.max_tokens`."""
    max_answer_tokens: PositiveInt = 30
    """Longest answer that can be given."""
    n_best: PositiveInt = 5
    """Number of best answers kept for each question, in addition to the one given."""


PARAMS = QuestionAnsweringParams


def encode(
    params: QuestionAnsweringParams, rows: pd.DataFrame, base: BaseModelInfo, label_names: Sequence[str]
) -> Columns:
    """One example for every window of a row's context."""
    from apf_tasks.families.question_answering.windows import encode_windows

    return encode_windows(rows, base, params.stride, params.max_answer_tokens)


def load_model(folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """The base with a head of two outputs per token: does an answer begin here, does it end here."""
    from apf_tasks.models.pretrained import load_pretrained

    return load_pretrained(folder, model, "AutoModelForQuestionAnswering", num_labels=2)


def loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the answer's first position plus that of its last, summed over the windows.

    Devlin et al. 2019 (arXiv:1810.04805), section 4.2 and 4.3; but positions of the question and of padding are out of
    the question, in training as in prediction.
    """
    from apf_tasks.families.question_answering.windows import log_probabilities

    output = model(**model_inputs(batch))
    first, last = log_probabilities(output.start_logits, output.end_logits, batch)  # each (B, T)
    labels = batch["labels"]  # (B, 2)
    return -(first.gather(1, labels[:, :1]) + last.gather(1, labels[:, 1:])).sum()


def predict(
    params: QuestionAnsweringParams,
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    base: BaseModelInfo,
    label_names: Sequence[str],
) -> list[Prediction]:
    """Per window the log-probability of no answer, `null`, and its best `spans`: (start, end, log-probability)."""
    from apf_tasks.families.question_answering.windows import best_spans, log_probabilities

    output = model(**model_inputs(batch))
    first, last = log_probabilities(output.start_logits, output.end_logits, batch)
    return best_spans(first, last, batch, params.n_best, params.max_answer_tokens)


def merge(
    params: QuestionAnsweringParams,
    rows: pd.DataFrame,
    pieces: ExamplePredictions,
    base: BaseModelInfo,
    settings: Thresholds,
) -> list[Prediction]:
    """The answer of each row: the best span of all its windows, unless "no answer" is better by the threshold.

    In every window the probabilities of all spans and of "no answer" are those of one choice, so a window without the
    answer gives its spans little, and log-probabilities compare across windows. (The reference implementation for
    SQuAD 2.0 compares logits, which no window limits.) As there, a row is as unanswerable as its most promising window.
    """
    from apf_tasks.evaluation.metrics.answers import ALWAYS_ANSWER

    threshold = settings.get(THRESHOLD, ALWAYS_ANSWER)
    return [
        _answer(str(context), windows, params.n_best, threshold)
        for context, windows in zip(rows["context"], pieces, strict=True)
    ]


def _answer(context: str, windows: Sequence[Prediction], n_best: int, threshold: float) -> Prediction:
    spans: dict[tuple[int, int], float] = {}
    for window in windows:
        for start, end, value in window["spans"]:
            spans[start, end] = max(value, spans.get((start, end), -math.inf))
    ranked = sorted(spans.items(), key=lambda span: (-span[1], span[0]))[:n_best]
    null = min(window["null"] for window in windows)
    difference = null - (ranked[0][1] if ranked else UNANSWERED)
    answered = bool(ranked) and difference <= threshold
    (start, end), value = ranked[0] if answered else ((-1, -1), null)
    return {
        "prediction": context[start:end] if answered else "",
        "score": math.exp(value),
        "start": start,
        "null_difference": difference,
        THRESHOLD: threshold,
        "n_best": [{"text": context[s:e], "start": s, "score": math.exp(v)} for (s, e), v in ranked],
    }


def tune(
    params: QuestionAnsweringParams, references: Sequence[Any], predictions: Sequence[Prediction]
) -> dict[str, float]:
    """The threshold of `null_difference` with the best F1: a row above it is left unanswered."""
    from apf_tasks.evaluation.metrics.answers import best_threshold

    best = [p["n_best"][0]["text"] if p["n_best"] else "" for p in predictions]
    differences = [p["null_difference"] for p in predictions]
    return {THRESHOLD: best_threshold(differences, references, best, params.language)}


def reference(rows: pd.DataFrame) -> list[list[str]]:
    """All accepted answers of each row; none where the context does not answer."""
    return [[answer["text"] for answer in answers] for answers in rows["answers"]]


def statistics(
    params: QuestionAnsweringParams,
    references: Sequence[Any],
    predictions: Sequence[Any],
    label_names: Sequence[str],
) -> np.ndarray:
    """(N, 3): one, exact match and F1."""
    from apf_tasks.evaluation.metrics.answers import answer_statistics

    return answer_statistics(references, predictions, params.language)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """F1 and exact match over all rows; the report tells them apart by whether there is an answer."""
    from apf_tasks.evaluation.metrics.answers import answer_scores

    return answer_scores(sums)


def baselines(
    params: QuestionAnsweringParams, train: BaselineInputs, test: BaselineInputs, seed: int
) -> dict[str, Sequence[Any]]:
    """What needs no model: the first sentence, and the one that shares most words with the question."""
    from apf_tasks.families.question_answering.report import best_overlap_sentence, first_sentence

    return {
        "first_sentence": [first_sentence(context) for context in test.rows["context"]],
        "best_overlap_sentence": [
            best_overlap_sentence(question, context, params.language)
            for question, context in zip(test.rows["question"], test.rows["context"], strict=True)
        ],
    }


def details(
    params: QuestionAnsweringParams,
    rows: pd.DataFrame,
    predictions: Sequence[Prediction],
    label_names: Sequence[str],
    out: Path,
) -> dict[str, Any]:
    """Scores by question word, by length of the answer and by whether there is one; a picture of them."""
    from apf_tasks.families.question_answering.report import draw, tables

    found = tables(rows["question"].tolist(), reference(rows), predictions, params.language)
    draw(found, out / "answers.png")
    return found


EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "question": "When was the bridge opened?",
        "context": "The bridge was built in four years. It was opened in May 1890 and closed in 1964.",
    },
    "zh": {"question": "大桥是什么时候通车的？", "context": "大桥建了四年，1890年5月通车，1964年关闭。"},
}


def family(params: QuestionAnsweringParams) -> Family:
    """Question answering with these options."""

    def of(function: Callable[..., Any]) -> Any:
        return partial(function, params)

    return Family(
        name="question_answering",
        columns={
            "context": "the text that holds the answer",
            "question": "what is asked",
            "answers": 'the accepted answers, a list of {"text", "answer_start"}',
        },
        alternatives=(
            {
                "context": "the text that holds the answer",
                "question": "what is asked",
                "answer": "the answer, a passage of the context",
            },
        ),
        optional={
            "is_impossible": "whether the context has no answer: true or false",
            "answer_start": "character of the context at which the answer begins, from 0",
            "title": "what the context is from",
        },
        text_columns=("context",),
        key_columns=("question", "context"),
        metrics=("f1", "exact_match"),
        check=check,
        encode=of(encode),
        load_model=load_model,
        loss=loss,
        predict=of(predict),
        merge=of(merge),
        tune=of(tune),
        reference=reference,
        statistics=of(statistics),
        scores=scores,
        baselines=of(baselines),
        details=of(details),
        example=EXAMPLES[params.language],
        output_columns={"prediction": "string", "score": "double", "start": "long"},
    )
