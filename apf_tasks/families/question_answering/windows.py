"""Question and context as token windows with character places, and back: the best spans of windows.

B windows of a batch, T tokens, M most tokens of an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apf_tasks.errors import ModelError
from apf_tasks.examples import Columns
from apf_tasks.families.question_answering.answers import target

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from apf_tasks.models.pretrained import BaseModelInfo

logger = logging.getLogger("apf")

NULL = 0
"""Position that stands for "no answer": [CLS] or <s>, the first token of a window."""


@dataclass(frozen=True)
class SpecialTokens:
    """What the tokenizer puts around and between two texts."""

    before: list[int]
    between: list[int]
    after: list[int]
    types: tuple[int, int] | None
    """Token type of the question's and of the context's half; None where the model has none."""

    @property
    def size(self) -> int:
        """Special tokens of a window."""
        return len(self.before) + len(self.between) + len(self.after)

    def window(self, question: list[int], context: list[int]) -> dict[str, list[int]]:
        """Token ids, and token types where the model has them."""
        first, second = [*self.before, *question, *self.between], [*context, *self.after]
        found = {"input_ids": first + second}
        if self.types is not None:
            found["token_type_ids"] = [self.types[0]] * len(first) + [self.types[1]] * len(second)
        return found


def frame_of(base: BaseModelInfo) -> SpecialTokens:
    """The frame of this tokenizer, seen on a pair of short texts. Raises ModelError without a fast tokenizer."""
    if not base.tokenizer.is_fast:
        do = "Save it once with transformers as tokenizer.json into the model folder."
        raise ModelError("question answering", "a tokenizer that knows the characters of its tokens", "a slow one", do)
    pair = base.tokenizer("a", "a")
    ids, side = list(pair["input_ids"]), pair.sequence_ids(0)
    first, second = [i for i, s in enumerate(side) if s == 0], [i for i, s in enumerate(side) if s == 1]
    between = ids[first[-1] + 1 : second[0]]
    kinds = pair.get("token_type_ids")
    # RoBERTa's kin has one type, DistilBERT and ModernBERT have none, whatever the tokenizer gives
    known = getattr(base.config, "type_vocab_size", None) or 0
    types = (kinds[first[0]], kinds[second[0]]) if kinds and max(kinds) < known and known > 1 else None
    return SpecialTokens(ids[: first[0]], between, ids[second[-1] + 1 :], types)


@dataclass(frozen=True)
class Text:
    """A context as tokens: the characters [start, end) of each, without white space at their ends.

    Byte-level BPE and SentencePiece count the blank before a word to the word. A token of nothing but white space has
    start == end.
    """

    ids: list[int]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def span(self, first: int, end: int) -> tuple[int, int] | None:
        """(first token, last token) of the fewest tokens that hold the characters [first, end); None for none."""
        real = np.flatnonzero(self.ends > self.starts)
        inside = real[(self.ends[real] > first) & (self.starts[real] < end)]
        return (int(inside[0]), int(inside[-1])) if len(inside) else None


def texts_of(texts: Sequence[str], base: BaseModelInfo) -> list[Text]:
    """Every text as tokens; equal ones, as contexts of many questions, are read once."""
    unique = list(dict.fromkeys(texts))
    encoded = base.tokenizer(unique, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    read = {
        text: Text(ids, *_trimmed(text, offsets))
        for text, ids, offsets in zip(unique, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    }
    return [read[text] for text in texts]


def _trimmed(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    blank = np.array([character.isspace() for character in text] + [False])
    following = np.arange(len(blank))  # of each character the next that is not blank, and behind the last before it
    following[blank] = len(text)
    following = np.minimum.accumulate(following[::-1])[::-1]
    behind = np.where(np.append(False, ~blank[:-1]), np.arange(len(blank)), 0)
    behind = np.maximum.accumulate(behind)
    starts = np.minimum(following[starts], ends)
    return starts, np.maximum(behind[ends], starts)


@dataclass
class UnreachableAnswers:
    """Rows whose answer training cannot, or not exactly, point at."""

    inside_a_token: int = 0
    too_long: int = 0
    in_no_window: int = 0


def windows(start: int, tokens: int, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """[first, end) of the windows over `tokens` tokens: `room` each, neighbours sharing `overlap`."""
    while True:
        yield start, min(start + room, tokens)
        if start + room >= tokens:
            return
        start += room - overlap


def encode_windows(rows: pd.DataFrame, base: BaseModelInfo, stride: int, max_answer_tokens: int) -> Columns:
    """Windows of question and context: `input_ids`, `token_type_ids` where the model has them, the characters of each
    context token (0 for all others), the answer's first and last position as `labels`, `truncated` and `row`.

    A question longer than half of `max_tokens` is cut, and its row counts as truncated; a context is never cut.
    Neighbouring windows share `stride` tokens, or half of their room when that is less. A window that does not hold
    the whole answer points to "no answer".
    """
    frame = frame_of(base)
    longest = max(1, min(base.max_tokens // 2, base.max_tokens - frame.size - 1))
    asked = base.tokenizer(rows["question"].tolist(), add_special_tokens=False, verbose=False)["input_ids"]
    contexts = texts_of(rows["context"].tolist(), base)
    goals = [target(answers) for answers in rows["answers"]] if "answers" in rows else [None] * len(rows)
    columns: Columns = {"input_ids": [], "offset_start": [], "offset_end": [], "labels": [], "truncated": [], "row": []}
    if frame.types is not None:
        columns["token_type_ids"] = []
    lost = UnreachableAnswers()
    for row, (ids, text, goal) in enumerate(zip(asked, contexts, goals, strict=True)):
        question = list(ids[:longest])
        span = text.span(*goal) if goal else None
        held = False
        for window in _windows_of(frame, question, text, span, base.max_tokens, stride):
            for name, value in window.items():
                columns[name].append(value)
            columns["truncated"].append(len(ids) > longest)
            columns["row"].append(row)
            held |= window["labels"] != [NULL, NULL]
        if goal and span:
            lost.inside_a_token += (int(text.starts[span[0]]), int(text.ends[span[1]])) != goal
            lost.too_long += span[1] - span[0] >= max_answer_tokens
            lost.in_no_window += not held
    _tell(lost, len(rows), max_answer_tokens)
    return columns


def _windows_of(
    frame: SpecialTokens, question: list[int], text: Text, span: tuple[int, int] | None, max_tokens: int, stride: int
) -> Iterator[dict[str, list[int]]]:
    room = max_tokens - frame.size - len(question)
    shift = len(frame.before) + len(question) + len(frame.between)
    for first, end in windows(0, len(text.ids), room, min(stride, room // 2)):
        labels = [NULL, NULL]
        if span and first <= span[0] and span[1] < end:
            labels = [shift + span[0] - first, shift + span[1] - first]
        yield {
            **frame.window(question, text.ids[first:end]),
            "offset_start": [0] * shift + text.starts[first:end].tolist() + [0] * len(frame.after),
            "offset_end": [0] * shift + _ends(text, first, end) + [0] * len(frame.after),
            "labels": labels,
        }


def _ends(text: Text, first: int, end: int) -> list[int]:
    """Ends of the characters; 0 for a token of white space, where no answer begins or ends."""
    ends: list[int] = np.where(text.ends > text.starts, text.ends, 0)[first:end].tolist()
    return ends


def _tell(lost: UnreachableAnswers, rows: int, max_answer_tokens: int) -> None:
    kinds = {
        "begin or end inside a token: trained on the tokens around them": lost.inside_a_token,
        f"have more than family.max_answer_tokens ({max_answer_tokens}) tokens: never found whole": lost.too_long,
        "are longer than a window, or lie across two: raise family.stride or model.max_tokens": lost.in_no_window,
    }
    for what, count in kinds.items():
        if count:
            logger.info("           %d of %d answers %s", count, rows, what)


def allowed(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Where an answer may begin or end: at tokens of the context with characters, and at NULL, (B, T)."""
    mask = batch["offset_end"] > 0
    mask[:, NULL] = True
    return mask


def log_probabilities(
    start_logits: torch.Tensor, end_logits: torch.Tensor, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the first and of the last position of the answer, over those allowed, each (B, T)."""
    import torch

    forbidden = ~allowed(batch)
    both = torch.stack([start_logits, end_logits]).float()  # (2, B, T)
    first, last = both.masked_fill(forbidden, -torch.inf).log_softmax(-1)
    return first, last


def best_spans(
    first: torch.Tensor, last: torch.Tensor, batch: dict[str, torch.Tensor], n_best: int, max_answer_tokens: int
) -> list[dict[str, Any]]:
    """Per window the log-probability of "no answer", `null`, and of the `n_best` best spans (start, end, log-p).

    All spans of up to M tokens are compared, not only those of the best beginnings and ends.
    """
    import torch
    import torch.nn.functional as F

    size, most = first.shape[1], min(max_answer_tokens, first.shape[1])
    text = batch["offset_end"] > 0  # (B, T)
    starts, ends = first.masked_fill(~text, -torch.inf), last.masked_fill(~text, -torch.inf)
    ends = F.pad(ends, (0, most - 1), value=-torch.inf).unfold(1, most, 1)  # (B, T, M): ends[b, t, m] of token t + m
    spans = (starts[:, :, None] + ends).flatten(1)  # (B, T * M)
    values, places = spans.topk(min(n_best, spans.shape[1]))  # (B, n_best)
    begin, length = places // most, places % most
    final = (begin + length).clamp(max=size - 1)
    characters = batch["offset_start"].gather(1, begin), batch["offset_end"].gather(1, final)
    found = zip(values.tolist(), characters[0].tolist(), characters[1].tolist(), strict=True)
    nulls = (first[:, NULL] + last[:, NULL]).tolist()
    return [
        {"null": null, "spans": [(s, e, v) for v, s, e in zip(*window, strict=True) if v > -np.inf]}
        for null, window in zip(nulls, found, strict=True)
    ]
