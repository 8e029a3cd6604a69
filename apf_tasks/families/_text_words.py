"""Text <-> words: where a text is cut, and the text that a list of words stands for.

The cut depends on nothing but the text and the option, so a served text is cut as the rows of the test were.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

from apf_tasks.words import is_unspaced

WordCut = Literal["auto", "whitespace", "punctuation", "characters"]
Place = tuple[int, int]
"""First character, character after the last."""


def resolved(how: WordCut, texts: Sequence[str]) -> WordCut:
    """`auto` as what it means for these texts together; other cuts as they are."""
    if how != "auto":
        return how
    return "characters" if is_unspaced(texts) else "punctuation"


def cut(text: str, how: WordCut) -> list[Place]:
    """The places of the words, in order; white space is part of none.

    `whitespace`: what stands between white space. `punctuation`: the same, and every punctuation mark or symbol is a
    word. `characters`: every character is a word.
    """
    kind = resolved(how, [text])
    if kind == "punctuation":
        return list(_between_marks(text))
    pattern = r"\S+" if kind == "whitespace" else r"\S"
    return [match.span() for match in re.finditer(pattern, text)]


def _between_marks(text: str) -> Iterator[Place]:
    start: int | None = None
    for at, character in enumerate(text):
        kind = _kind(character)
        if kind == "letter":
            start = at if start is None else start
            continue
        if start is not None:
            yield start, at
            start = None
        if kind == "mark":
            yield at, at + 1
    if start is not None:
        yield start, len(text)


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """Combining marks and digits are letters here: a word of Hindi or Thai does not end at a vowel sign."""
    if character.isspace():
        return "blank"
    return "mark" if unicodedata.category(character)[0] in "PS" else "letter"


def joined(tokens: Sequence[str], how: WordCut) -> tuple[str, list[Place]]:
    """A text that consists of the tokens, and the place of each.

    Blanks stand between them. Where characters are words they do not, but between two Latin words or numbers.
    """
    between = _between if resolved(how, tokens) == "characters" else _blank
    parts: list[str] = []
    places: list[Place] = []
    end = 0
    for at, token in enumerate(tokens):
        gap = between(tokens[at - 1], token) if at else ""
        parts += [gap, token]
        places.append((end + len(gap), end + len(gap) + len(token)))
        end = places[-1][1]
    return "".join(parts), places


def _blank(left: str, right: str) -> str:
    return " "


def _between(left: str, right: str) -> str:
    """One character at a time, W T O is a single word; longer tokens are words of their own."""
    words = len(left) > 1 and len(right) > 1 and left.isalnum() and right.isalnum()
    return " " if words and not is_unspaced([left]) and not is_unspaced([right]) else ""


def located(tokens: Sequence[str], text: str) -> list[Place] | None:
    """The places of the tokens in a text that consists of them and of white space; None when it does not."""
    places: list[Place] = []
    end = 0
    for token in tokens:
        start = text.find(token, end)
        if start < 0 or text[end:start].strip():
            return None
        end = start + len(token)
        places.append((start, end))
    return None if text[end:].strip() else places
