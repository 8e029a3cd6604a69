"""Perplexity and bits per byte of language models, and n-gram models to compare with. N rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.rows import check_rows

Ids = NDArray[np.int64]


def language_statistics(references: Sequence[str], predictions: Sequence[Sequence[float]]) -> Counts:
    """(N, 3): negative log-likelihood in nats, predicted tokens, bytes of the text in UTF-8.

    `references`: the text that was predicted; `predictions`: [negative log-likelihood, tokens] per row.
    """
    check_rows(references, predictions)
    rows = [[*pair, len(text.encode())] for text, pair in zip(references, predictions, strict=True)]
    return np.asarray(rows, dtype=np.float64).reshape(-1, 3)


def language_scores(sums: np.ndarray) -> Scores:
    """perplexity and bits_per_byte from sums of `language_statistics`, (..., 3) -> (...); lower is better for both.

    perplexity = exp(nats / tokens) (Jelinek et al. 1977); it compares models of the same tokenizer only.
    bits_per_byte = nats / (ln 2 * bytes) (Gao et al. 2020, The Pile, section 3.1) compares any models of the same text.
    NaN where there are no tokens or no bytes.
    """
    nats, tokens, size = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    with np.errstate(over="ignore"):  # a hopeless model has an infinite perplexity
        perplexity = np.exp(_per(nats, tokens))
    return {"perplexity": perplexity, "bits_per_byte": _per(nats, size) / np.log(2)}


def _per(part: Counts, whole: Counts) -> Counts:
    return np.asarray(np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0))


def unigram_nll(
    train_ids: Iterable[Sequence[int]],
    test_ids: Iterable[Sequence[int]],
    vocabulary_size: int,
    context_tokens: int | Sequence[int] = 1,
) -> list[list[float]]:
    """`ngram_nll` of order 1: token frequencies, with a share for tokens that train does not have."""
    return ngram_nll(train_ids, test_ids, vocabulary_size, order=1, context_tokens=context_tokens)


def ngram_nll(
    train_ids: Iterable[Sequence[int]],
    test_ids: Iterable[Sequence[int]],
    vocabulary_size: int,
    order: int = 3,
    context_tokens: int | Sequence[int] = 1,
) -> list[list[float]]:
    """[negative log-likelihood in nats, tokens] of each test row under an n-gram model of the train rows.

    `context_tokens`: how many tokens at the start of a row (of each row, when a sequence) are only context, as the
    first one is to a causal model. Smoothing: Witten & Bell 1991 (method C), interpolated down to the uniform
    distribution as in Chen & Goodman 1999:

        p(w | h) = (count(h w) + types(h) * p(w | shorter h)) / (count(h) + types(h))

    where types(h) is the number of different tokens after h, and p(w | h) = p(w | shorter h) where h was never followed
    by anything. Rows are separate: nothing is predicted from the row before. Raises DataError for ids outside the
    vocabulary.
    """
    train, train_at, _ = _flat(train_ids, vocabulary_size)
    test, test_at, lengths = _flat(test_ids, vocabulary_size)
    probability = np.full(len(test), 1 / vocabulary_size)  # (tokens of test,)
    # Before each token stands a context: the number of a (k-1)-gram of train; -1 when train has none or the row starts.
    train_context, test_context, contexts = np.zeros_like(train), np.zeros_like(test), 1
    for _ in range(order):
        keys = train_context[train_context >= 0] * vocabulary_size + train[train_context >= 0]
        grams, counts = np.unique(keys, return_counts=True)
        if not len(grams):
            break
        test_gram = _find(grams, test_context, test, vocabulary_size)
        probability = _interpolate(probability, grams // vocabulary_size, counts, contexts, test_context, test_gram)
        train_context = _before(_find(grams, train_context, train, vocabulary_size), train_at)
        test_context, contexts = _before(test_gram, test_at), len(grams)
    row = np.repeat(np.arange(len(lengths)), lengths)
    counted = test_at >= np.broadcast_to(np.asarray(context_tokens), len(lengths))[row]
    sums = np.bincount(row[counted], -np.log(probability[counted]), minlength=len(lengths))
    tokens = np.bincount(row[counted], minlength=len(lengths))
    return [[float(nats), float(count)] for nats, count in zip(sums, tokens, strict=True)]


def _flat(rows: Iterable[Sequence[int]], vocabulary_size: int) -> tuple[Ids, Ids, Ids]:
    """All tokens in one array, the place of each in its row, the length of each row."""
    arrays = [np.asarray(row, dtype=np.int64) for row in rows]
    lengths = np.array([len(a) for a in arrays], dtype=np.int64)
    tokens = np.concatenate([np.zeros(0, dtype=np.int64), *arrays])
    outside = tokens[(tokens < 0) | (tokens >= vocabulary_size)]
    if len(outside):
        expected = f"token ids from 0 to {vocabulary_size - 1:,}"
        raise DataError("n-gram model", expected, f"{outside[0]:,}", "Use the vocabulary size of the tokenizer.")
    return tokens, np.arange(len(tokens)) - np.repeat(lengths.cumsum() - lengths, lengths), lengths


def _find(grams: Ids, context: Ids, tokens: Ids, vocabulary_size: int) -> Ids:
    """The place of context + token among the sorted `grams`, -1 where it is not there."""
    keys = context * vocabulary_size + tokens  # negative where the context is -1
    place = np.minimum(np.searchsorted(grams, keys), len(grams) - 1)
    return np.where(grams[place] == keys, place, -1)


def _before(grams: Ids, place_in_row: Ids) -> Ids:
    """For each token the gram that ends just before it, -1 at the start of a row."""
    return np.where(place_in_row > 0, np.roll(grams, 1), -1)


def _interpolate(
    lower: Counts, context_of_gram: Ids, counts: Ids, contexts: int, test_context: Ids, test_gram: Ids
) -> Counts:
    """Probabilities of the next higher order; `lower` where the context was not seen."""
    total = np.bincount(context_of_gram, counts, minlength=contexts)[test_context]
    types = np.bincount(context_of_gram, minlength=contexts)[test_context]
    seen = (test_context >= 0) & (total > 0)
    own = np.where(test_gram >= 0, np.append(counts, 0)[test_gram], 0)
    return np.where(seen, (own + types * lower) / np.where(seen, total + types, 1), lower)
