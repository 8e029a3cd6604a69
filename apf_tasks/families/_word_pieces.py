"""Words -> windows of sub-words in which no word is lost. W words of a row, T tokens of a window.

Every word is encoded by itself: its pieces are the same whatever stands beside it, and none reaches over its border.
The first piece of a word stands for the word. A row that does not fit is cut into overlapping windows, and each of its
words counts in one of them, where most tokens are around it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from apf_tasks.pretrained import Base

BLANKS = ("▁", "Ġ")
"""How SentencePiece and byte-level tokenizers write the blank before a word."""

Pieces = list[int]
"""Token ids of a word."""


class Frame(NamedTuple):
    """The special tokens around a text."""

    before: list[int]
    after: list[int]

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.after)


class Window(NamedTuple):
    """Some words of a row that are read together."""

    first: int
    end: int
    """Word after the last."""
    own: range
    """Words that count in this window."""


def frame_of(tokenizer: PreTrainedTokenizerBase) -> Frame:
    """What this tokenizer puts around a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return Frame(whole[:at], whole[at + len(bare) :])


def pieces_of(words: set[tuple[str, bool]], base: Base) -> dict[tuple[str, bool], Pieces]:
    """(word, whether blanks stand around it) -> its token ids; at least one, at most as many as a window holds."""
    tokenizer, room = base.tokenizer, base.max_tokens - frame_of(base.tokenizer).size
    keys = sorted(words)
    texts = [f" {word}" if spaced else word for word, spaced in keys]
    found = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    unknown = [base.pad_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id]
    found = [ids if spaced else _without_blank(ids, tokenizer) for ids, (_, spaced) in zip(found, keys, strict=True)]
    return {key: (ids or unknown)[: room + 1] for key, ids in zip(keys, found, strict=True)}


def _without_blank(ids: Pieces, tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """The pieces of a word that no blank precedes, from a tokenizer that begins every text with one.

    Without this, SentencePiece would write most Chinese characters as two tokens, the first of them a mere blank.
    """
    first = tokenizer.convert_ids_to_tokens(ids[0]) if ids else ""
    if not first.startswith(BLANKS):
        return ids
    if len(first) == 1:
        return ids[1:] or ids
    bare = tokenizer.convert_tokens_to_ids(first[1:])
    return ids if bare in (None, tokenizer.unk_token_id) else [bare, *ids[1:]]


def windows(lengths: Sequence[int], room: int, stride: int) -> list[Window]:
    """The windows of a row whose words have `lengths` tokens, each at least 1 and at most `room`.

    Neighbours share at most `stride` tokens. Every word is own to one window; own words of the windows, one after the
    other, are the words of the row.
    """
    words = len(lengths)
    ends = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).tolist()  # (W + 1,)
    if ends[-1] <= room:
        return [Window(0, words, range(words))]
    bounds: list[tuple[int, int]] = []
    first = end = 0
    while end < words:
        end = bisect_right(ends, ends[first] + room) - 1
        bounds.append((first, end))
        if end < words:  # the next window has one more word at least
            first = max(bisect_left(ends, ends[end] - stride), bisect_left(ends, ends[end + 1] - room))
    owner = _owners(bounds, np.asarray(ends))
    at = np.searchsorted(owner, np.arange(len(bounds) + 1)).tolist()
    return [Window(first, end, range(at[i], at[i + 1])) for i, (first, end) in enumerate(bounds)]


def _owners(bounds: Sequence[tuple[int, int]], ends: np.ndarray) -> np.ndarray:
    """For each word the window with most tokens on its poorer side, (W,); the ends of the row count as far away.

    Ascending, because of two windows that share words the later one gains on its left what the earlier one loses on
    its right.
    """
    words, far = len(ends) - 1, int(ends[-1])
    most, owner = np.full(words, -1), np.zeros(words, dtype=np.int64)
    for number, (first, end) in enumerate(bounds):
        inside = slice(first, end)
        left = ends[first:end] - ends[first] if first else np.full(end - first, far)
        right = ends[end] - ends[first + 1 : end + 1] if end < words else np.full(end - first, far)
        context = np.minimum(left, right)
        better = context > most[inside]
        owner[inside][better] = number
        most[inside] = np.maximum(most[inside], context)
    return owner
