"""Answers as data sets write them -> one form, each at its place in the context; what is wrong with a row.

Read are SQuAD's lists of {"text", "answer_start"} (Rajpurkar et al. 2016), the Hub's {"text": [...], "answer_start":
[...]}, lists of texts, and one text with its start in a column of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from apf_tasks.family import CheckedRows

if TYPE_CHECKING:
    import pandas as pd

NOWHERE = -1
"""Start of an answer that is not in its context: it counts as a reference, but cannot be a training target."""

MOVED = "answer_start was wrong, the answer found elsewhere"
SEARCHED = "answer_start missing, the answer found"
TRIMMED = "white space around an answer removed"
BLANK = "empty answers among others left out"
KEPT = "answers not in their context, kept as references next to others that are"

_YES_NO = {"true": True, "1": True, "false": False, "0": False}


class Answer(NamedTuple):
    """One answer as it was read."""

    text: str
    start: int | None
    """In characters of the context; None where the source has none."""


class MalformedError(ValueError):
    """The answers have no form that is known; the message is the reason for the row."""


def check(rows: pd.DataFrame) -> CheckedRows:
    """A usable row has a context, a question, and answers of which one stands in the context, or none at all.

    `answers` becomes a list of {"text", "answer_start"}: trimmed, each start right, NOWHERE where the text is not in
    the context; empty when the question has no answer.
    """
    import pandas as pd

    notes: Counter[str] = Counter()
    flags = rows["is_impossible"] if "is_impossible" in rows else [None] * len(rows)
    starts = rows["answer_start"] if "answer_start" in rows else [None] * len(rows)
    given = rows["answers"] if "answers" in rows else rows["answer"]
    answers: list[list[dict[str, Any]]] = []
    reasons: list[str] = []
    for context, question, value, start, flag in zip(
        rows["context"], rows["question"], given, starts, flags, strict=True
    ):
        found, reason, repaired = _judge(context, question, value, start, flag)
        answers.append(found)
        reasons.append(reason)
        if not reason:
            notes.update(repaired)
    checked = rows.assign(answers=pd.Series(answers, index=rows.index, dtype=object))
    return CheckedRows(checked, pd.Series(reasons, index=rows.index, dtype=object), dict(notes))


def _judge(
    context: Any, question: Any, value: Any, start: Any, flag: Any
) -> tuple[list[dict[str, Any]], str, list[str]]:
    """(answers, "" or why the row is unusable, what was repaired)."""
    for name, text in (("context", context), ("question", question)):
        if not isinstance(text, str):
            return [], f"no {name}" if text is None else f"the {name} is not text", []
    impossible = _YES_NO.get(str(flag).strip().lower())
    if flag is not None and impossible is None:
        return [], "is_impossible is neither true nor false", []
    try:
        read = read_answers(value, start)
    except MalformedError as malformed:
        return [], str(malformed), []
    written = [answer for answer in read or [] if answer.text.strip()]
    if impossible and written:
        return [], "is_impossible, but there are answers", []
    if not written:
        return [], "" if impossible else _why_none(read, impossible), []
    placed, repaired = place_answers(context, written)
    if all(answer["answer_start"] == NOWHERE for answer in placed):
        return [], "the answer is not in its context", []
    return placed, "", repaired + [BLANK] * (len(read or []) - len(written))


def _why_none(read: list[Answer] | None, impossible: bool | None) -> str:
    """Why a row without answers is unusable; "" when it says that there are none."""
    if read is None:
        return "no answer (if the context has none, is_impossible has to be true)"
    if impossible is False:
        return "no answer, but is_impossible is false"
    stated = all(answer.start == NOWHERE for answer in read)  # also of none: an empty list
    return "" if stated else "empty answer"


def read_answers(value: Any, start: Any = None) -> list[Answer] | None:
    """The answers in whichever form; None when there is nothing at all. Raises MalformedError."""
    if isinstance(value, dict):
        value = _rows_of(value)
    if value is None:
        number = _whole_number(start)
        return [Answer("", number)] if number == NOWHERE else None
    if isinstance(value, str):
        return [Answer(value, _whole_number(start))]
    if not isinstance(value, list):
        raise MalformedError("the answers are not a list")
    return [_answer(one, number) for number, one in enumerate(value, start=1)]


def _rows_of(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The Hub's two lists as a list of answers."""
    texts, starts = value.get("text"), value.get("answer_start")
    if isinstance(texts, str) or isinstance(value.get("answer_start"), int):
        return [value]
    if not isinstance(texts, list):
        raise MalformedError("the answers have no list `text`")
    if starts is None:
        starts = [None] * len(texts)
    if not isinstance(starts, list) or len(starts) != len(texts):
        raise MalformedError("`answer_start` and `text` differ in number")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _answer(one: Any, number: int) -> Answer:
    text, start = (one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (one, None)
    if not isinstance(text, str):
        raise MalformedError(f"answer {number} has no text")
    return Answer(text, _whole_number(start))


def _whole_number(start: Any) -> int | None:
    if start is None or (isinstance(start, str) and not start.strip()):
        return None
    try:
        number = float(start)
    except (TypeError, ValueError):
        number = 0.5
    if not number.is_integer():
        raise MalformedError("answer_start is not a whole number")
    return int(number)


def place_answers(context: str, answers: Sequence[Answer]) -> tuple[list[dict[str, Any]], list[str]]:
    """The answers trimmed and at their places, and what had to be repaired.

    A text that is not where its start says is looked for: the nearest occurrence counts, without any start the first.
    """
    placed: list[dict[str, Any]] = []
    repaired: list[str] = []
    for answer in answers:
        text = answer.text.strip()
        leading = len(answer.text) - len(answer.text.lstrip())
        wanted = None if answer.start is None else answer.start + leading
        start = nearest(context, text, wanted or 0)
        placed.append({"text": text, "answer_start": start})
        if text != answer.text:
            repaired.append(TRIMMED)
        if start == NOWHERE:
            repaired.append(KEPT)
        elif start != wanted:
            repaired.append(SEARCHED if wanted is None else MOVED)
    return placed, repaired


def nearest(context: str, text: str, start: int) -> int:
    """Where in `context` the occurrence of `text` nearest to `start` begins; NOWHERE when there is none."""
    start = max(0, start)
    after = context.find(text, start)
    if after == start:
        return start
    before = context.rfind(text, 0, start + len(text) - 1)
    if after < 0 or before < 0:
        return max(after, before)
    return before if start - before <= after - start else after


def target(answers: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    """(first character, character behind the last) that training points at; None when there is no answer.

    The answer that most annotators gave; of equally frequent ones the first.
    """
    spans = [(a["answer_start"], a["answer_start"] + len(a["text"])) for a in answers if a["answer_start"] != NOWHERE]
    return Counter(spans).most_common(1)[0][0] if spans else None
