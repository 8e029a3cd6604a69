"""Questions on paragraphs: SQuAD 1.1 and 2.0, what is written in their shape, and the first form of CMRC 2018.

SQuAD: Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822). CMRC 2018: Cui et al. 2019
(arXiv:1810.07366).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.errors import DataError
from apf_tasks.sources.formats.table import Rejected, Table, half_a_pair, table_of

COLUMNS = ("id", "title", "context", "question", "answers", "is_impossible")
CMRC_KEYS = {"context_text": "context", "query_text": "question", "query_id": "id"}


class Question(NamedTuple):
    """One row, or why there is none."""

    values: dict[str, Any]
    problem: str = ""


def is_squad(value: Any) -> bool:
    """Whether a JSON value has the shape: a list of paragraphs with `qas`, or of entries with such `paragraphs`; under
    `data` or by itself.
    """
    entries = value.get("data") if isinstance(value, dict) else value
    return isinstance(entries, list) and any(isinstance(e, dict) and _holds_questions(e) for e in entries)


def _holds_questions(entry: dict[str, Any]) -> bool:
    return "paragraphs" in entry or ("qas" in entry and bool({"context", "context_text"} & entry.keys()))


def read_squad(value: Any, path: Path, name: str, escapes: bool) -> Table:
    """One row per question, counted from 1. `answers`: list of {"text", "answer_start"}, the start counted in
    characters of `context` and None where the file has none; `is_impossible`: true, false, or None when not said.
    `escapes`: whether the file may hold half a surrogate pair. Raises DataError for another shape.
    """
    if not is_squad(value):
        expected = "an object whose `data` has `paragraphs`, or a list of `context` with `qas`"
        found = "an object with " + (", ".join(list(value)[:8]) or "nothing") if isinstance(value, dict) else "neither"
        raise DataError(str(path), expected, found, "For plain rows write data.format: json.")
    columns: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    numbers: list[int] = []
    rejected: list[Rejected] = []
    for number, (values, problem) in enumerate(_questions(value), start=1):
        if problem := problem or (half_a_pair(values) if escapes else ""):
            rejected.append(Rejected(name, number, problem))
            continue
        numbers.append(number)
        for column in COLUMNS:
            columns[column].append(values[column])
    return table_of(name, columns, numbers, rejected)


def _questions(value: Any) -> Iterator[Question]:
    """All questions in order. What cannot be entered counts as one."""
    for e, entry in enumerate(value["data"] if isinstance(value, dict) else value, start=1):
        if not isinstance(entry, dict):
            yield Question({}, f"entry {e} is not an object")
        elif "qas" in entry:
            yield from _paragraph(entry, None, f"paragraph {e}")
        elif not isinstance(entry.get("paragraphs"), list):
            yield Question({}, f"entry {e} has no list of paragraphs")
        else:
            for p, paragraph in enumerate(entry["paragraphs"], start=1):
                yield from _paragraph(paragraph, entry.get("title"), f"entry {e}, paragraph {p}")


def _paragraph(paragraph: Any, title: Any, place: str) -> Iterator[Question]:
    if not isinstance(paragraph, dict):
        yield Question({}, f"{place} is not an object")
        return
    paragraph = _renamed(paragraph)
    if not isinstance(paragraph.get("qas"), list):
        yield Question({}, f"{place} has no list of questions (qas)")
        return
    shared = {"title": paragraph.get("title") if title is None else title, "context": paragraph.get("context")}
    problem = "" if isinstance(shared["context"], str) else f"{place} has no context"
    for q, question in enumerate(paragraph["qas"], start=1):
        if problem:
            yield Question({}, problem)
        elif not isinstance(question, dict):
            yield Question({}, f"{place}, question {q} is not an object")
        else:
            values, problem_here = _question(_renamed(question))
            yield Question(shared | values, f"{place}, question {q}: {problem_here}" if problem_here else "")


def _renamed(value: dict[str, Any]) -> dict[str, Any]:
    return {CMRC_KEYS.get(key, key): inner for key, inner in value.items()}


def _question(found: dict[str, Any]) -> Question:
    impossible, answers = found.get("is_impossible"), found.get("answers")
    if answers is None and impossible is True:
        answers = []
    values = {"id": found.get("id"), "question": found.get("question"), "answers": answers, "is_impossible": impossible}
    if not isinstance(values["question"], str):
        return Question(values, "the question is not text")
    if not isinstance(impossible, (bool, type(None))):
        return Question(values, "is_impossible is neither true nor false")
    if answers is None:
        return Question(values)  # a file to predict on, or a slip: the family judges
    if not isinstance(answers, list):
        return Question(values, "the answers are not a list")
    read = [_answer(answer) for answer in answers]
    if None in read:
        return Question(values, f"answer {read.index(None) + 1} is not a text with its answer_start")
    return Question(values | {"answers": read})


def _answer(answer: Any) -> dict[str, Any] | None:
    """The answer; None when it has another shape. CMRC's first form has texts without a place."""
    found = {"text": answer} if isinstance(answer, str) else answer
    if not isinstance(found, dict) or not isinstance(found.get("text"), str):
        return None
    start = found.get("answer_start")
    whole = start is None or (isinstance(start, int) and not isinstance(start, bool))
    return {"text": found["text"], "answer_start": start} if whole else None
