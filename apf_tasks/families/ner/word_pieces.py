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

from apf_tasks.examples import IGNORE_INDEX, Columns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from apf_tasks.models.pretrained import BaseModelInfo

BLANKS = ("▁", "Ġ")
"""How SentencePiece and byte-level tokenizers write the blank before a word."""

Word = tuple[str, bool]
"""A word, and whether blanks separate it from the words beside it."""
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


def encode_words(
    rows: Sequence[Sequence[Word]], targets: Sequence[Sequence[int]], base: BaseModelInfo, stride: int
) -> Columns:
    """Windows of the rows, whose words have these targets.

    `labels` has the target of a word at its first token, `word_starts` a 1, where the word counts; `truncated` says
    that a word alone is longer than a window, and lost pieces.
    """
    frame = frame_of(base.tokenizer)
    room = base.max_tokens - frame.size
    known = pieces_of({word for row in rows for word in row}, base)
    columns: Columns = {name: [] for name in ("input_ids", "labels", "word_starts", "truncated", "row")}
    for row, (words, goals) in enumerate(zip(rows, targets, strict=True)):
        pieces = [known[word][:room] for word in words]
        for window in windows([len(ids) for ids in pieces], room, stride):
            ids, labels, starts = list(frame.before), [IGNORE_INDEX] * len(frame.before), [0] * len(frame.before)
            for word in range(window.first, window.end):
                own, more = word in window.own, len(pieces[word]) - 1
                ids += pieces[word]
                labels += [goals[word] if own else IGNORE_INDEX] + [IGNORE_INDEX] * more
                starts += [int(own)] + [0] * more
            columns["input_ids"].append(ids + frame.after)
            columns["labels"].append(labels + [IGNORE_INDEX] * len(frame.after))
            columns["word_starts"].append(starts + [0] * len(frame.after))
            columns["truncated"].append(any(len(known[words[at]]) > room for at in window.own))
            columns["row"].append(row)
    return columns


def pieces_of(words: set[Word], base: BaseModelInfo) -> dict[Word, Pieces]:
    """Word -> its token ids, at least one."""
    tokenizer = base.tokenizer
    keys = sorted(words)
    texts = [f" {word}" if spaced else word for word, spaced in keys]
    found = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    unknown = [tokenizer.unk_token_id if isinstance(tokenizer.unk_token_id, int) else base.pad_id]
    bare = [ids if spaced else _without_blank(ids, tokenizer) for ids, (_, spaced) in zip(found, keys, strict=True)]
    return {key: ids or unknown for key, ids in zip(keys, bare, strict=True)}


def _without_blank(ids: Pieces, tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """The pieces of a word that no blank precedes, from a tokenizer that begins every text with one.

    Without this, SentencePiece would write most Chinese characters as two tokens, the first of them a mere blank.
    """
    first = str(tokenizer.convert_ids_to_tokens(ids[0])) if ids else ""
    if not first.startswith(BLANKS):
        return ids
    if len(first) == 1:
        return ids[1:] or ids
    bare = tokenizer.convert_tokens_to_ids(first[1:])
    return [bare, *ids[1:]] if isinstance(bare, int) and bare != tokenizer.unk_token_id else ids


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
