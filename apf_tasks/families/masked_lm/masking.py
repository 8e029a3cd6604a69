"""Which words of a text are masked, and what replaces them.

T tokens, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from apf_tasks.errors import ModelError
from apf_tasks.examples import IGNORE_INDEX, Columns

if TYPE_CHECKING:
    from apf_tasks.models.pretrained import BaseModelInfo

Ids = NDArray[np.int64]
WordsBy = Literal["auto", "whitespace", "jieba"]

MASKED, RANDOM = 0.8, 0.1
"""Shares of hidden tokens that become the mask token, or any token; the others stay (Devlin et al. 2019, 3.1)."""


def encode_windows(texts: Sequence[str], base: BaseModelInfo, words: WordsBy) -> Columns:
    """Every text as windows of at most `max_tokens` tokens, special tokens around each: `input_ids`; `words`, the
    number of each token's word from 1, 0 for special tokens; `labels`, the tokens that can be hidden; `row`.

    Raises ModelError for a tokenizer without a mask token or without word borders.
    """
    tokenizer = base.tokenizer
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        found = "a slow one" if tokenizer.mask_token_id is not None else "one without"
        do = "Choose an encoder such as bert, roberta or modernbert."
        raise ModelError("masked_lm", "a fast tokenizer with a mask token", found, do)
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=base.max_tokens,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    never = [tokenizer.mask_token_id, tokenizer.unk_token_id]  # predicting "unknown" is no merit
    columns: Columns = {"input_ids": encoded["input_ids"], "labels": [], "truncated": [], "words": [], "row": []}
    cuts = [word_of_character(text, words) for text in texts]
    for at, (ids, row) in enumerate(zip(encoded["input_ids"], encoded["overflow_to_sample_mapping"], strict=True)):
        kept = (np.asarray(encoded["special_tokens_mask"][at]) == 1) | np.isin(ids, never)
        cut = cuts[row]
        if cut is None:
            words_of = [-1 if word is None else word for word in encoded.word_ids(at)]
        else:
            words_of = [cut[start] for start, _ in encoded["offset_mapping"][at]]
        numbers = np.zeros(len(ids), dtype=np.int64)  # (T,)
        numbers[~kept] = 1 + np.unique(np.asarray(words_of)[~kept], return_inverse=True)[1]
        columns["words"].append(numbers.tolist())
        columns["labels"].append(np.where(numbers > 0, ids, IGNORE_INDEX).tolist())
        columns["truncated"].append(False)
        columns["row"].append(row)
    return columns


def word_of_character(text: str, words: WordsBy) -> list[int] | None:
    """The number of the word that each character is in, and one for the end; None where the tokenizer knows it."""
    from apf_tasks.words import is_unspaced, jieba_cut

    if words == "whitespace" or (words == "auto" and not is_unspaced([text])):
        return None
    return [at for at, word in enumerate(jieba_cut()(text)) for _ in word] + [-1]


def mask_words(fraction: float, columns: Columns, base: BaseModelInfo, seeds: Sequence[int]) -> Columns:
    """The examples with some of their words hidden, and these as `labels`.

    Seeds and content of an example decide. A text that brings mask tokens is to be filled in: nothing else is hidden.
    """
    mask_id = base.tokenizer.mask_token_id
    others = _ordinary_ids(len(base.tokenizer), tuple(base.tokenizer.all_special_ids))
    inputs: list[list[int]] = []
    labels: list[list[int]] = []
    for listed, words in zip(columns["input_ids"], columns["words"], strict=True):
        ids = np.asarray(listed)
        random = _generator(listed, seeds)
        hidden = hidden_tokens(words, fraction, random) & (mask_id not in listed)  # (T,)
        kind, other = random.random(len(ids)), others[random.integers(len(others), size=len(ids))]
        seen = np.select([kind < MASKED, kind < MASKED + RANDOM], [np.full_like(ids, mask_id), other], ids)
        inputs.append(np.where(hidden, seen, ids).tolist())
        labels.append(np.where(hidden, ids, IGNORE_INDEX).tolist())
    return {"input_ids": inputs, "labels": labels}


def fixed_targets(fraction: float, columns: Columns) -> list[list[int]]:
    """The tokens that the fixed view of an evaluation hides, per example."""
    found = []
    for ids, words in zip(columns["input_ids"], columns["words"], strict=True):
        found.append(np.asarray(ids)[hidden_tokens(words, fraction, _generator(ids, ()))].tolist())
    return found


def _generator(ids: Sequence[int], seeds: Sequence[int]) -> np.random.Generator:
    content = blake2b(np.asarray(ids, dtype=np.int32).tobytes(), digest_size=8).digest()
    return np.random.default_rng([*seeds, int.from_bytes(content, "big")])


def hidden_tokens(words: Sequence[int], fraction: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Whole words in random order, each that still fits into `fraction` of the tokens; one at least, (T,)."""
    numbers = np.asarray(words)
    sizes = np.bincount(numbers)[1:]  # (W,)
    room = max(1, round(fraction * int(sizes.sum())))
    chosen: list[int] = []
    for word in random.permutation(len(sizes)):
        if sizes[word] <= room:
            chosen.append(int(word) + 1)
            room -= int(sizes[word])
        if not room:
            break
    if not chosen and len(sizes):
        chosen = [int(sizes.argmin()) + 1]
    return np.isin(numbers, chosen)


@lru_cache(maxsize=8)
def _ordinary_ids(size: int, special: tuple[int, ...]) -> Ids:
    return np.setdiff1d(np.arange(size), special)
