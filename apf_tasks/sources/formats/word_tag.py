"""`word/tag word/tag …`, one sentence per line: the People's Daily corpus of Peking University.

Format: Yu et al. 2002, the basic processing of modern Chinese corpora at Peking University (in Chinese).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from apf_tasks.sources.formats.table import Rejected, Table, numbered_lines, table_of

PARAGRAPH_ID = re.compile(r"(\d{8}-\d+-\d+)-\d+")
CLOSING = re.compile(r"(.+/[^/\[\]]+)\]/?(\w+)")
"""The last word of a compound, with the tag of the whole: `电台/n]nt`, in some copies `电台/n]/nt`."""


class Sentence(NamedTuple):
    """One line, or why it cannot be used."""

    words: list[str]
    tags: list[str]
    compounds: list[dict[str, Any]]
    article: str | None = None
    problem: str = ""


def read_word_tag(text: str, name: str) -> Table:
    """Columns `tokens` (words), `tags` (parts of speech as they stand) and `compounds` (of each `[…]tag` its `start`,
    `end` and `tag`, counted in words, the end not included); `document`, the article, where lines begin with its id.
    """
    columns: dict[str, list[Any]] = {"tokens": [], "tags": [], "compounds": [], "document": []}
    numbers: list[int] = []
    rejected: list[Rejected] = []
    for number, line in numbered_lines(text):
        pieces = [piece for piece in re.split("[ \t]+", line) if piece]
        if not pieces:
            continue
        sentence = _sentence(pieces)
        if sentence.problem:
            rejected.append(Rejected(name, number, sentence.problem))
            continue
        numbers.append(number)
        for column, value in zip(columns.values(), sentence[:4], strict=True):
            column.append(value)
    if not any(columns["document"]):
        del columns["document"]
    return table_of(name, columns, numbers, rejected)


def _sentence(pieces: list[str]) -> Sentence:
    found = Sentence([], [], [])
    opened: int | None = None
    for piece in pieces:
        closing = CLOSING.fullmatch(piece) if "]" in piece else None
        word, slash, tag = (closing[1] if closing else piece).rpartition("/")
        if not slash or not word or not tag:
            return found._replace(problem="a word without its tag")
        if not found.words and found.article is None and (id_ := PARAGRAPH_ID.fullmatch(word)):
            found = found._replace(article=id_[1])
            continue
        if word.startswith("[") and len(word) > 1:
            opened = len(found.words)
        found.words.append(word)
        found.tags.append(tag)
        if closing and opened is None:
            return found._replace(problem="a ] without its [")
        if closing and opened is not None:
            found.words[opened] = found.words[opened][1:]  # a [ that nothing closes is part of its word
            found.compounds.append({"start": opened, "end": len(found.words), "tag": closing[2]})
            opened = None
    return found if found.words else found._replace(problem="no words")
