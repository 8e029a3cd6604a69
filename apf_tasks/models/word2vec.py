"""Word2Vec by gensim: sentences -> word vectors, the same ones every time with one worker."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from apf_tasks.models.word_vectors import WordVectors
from apf_tasks.params.word_vectors import VectorsParams

if TYPE_CHECKING:
    from gensim.models import Word2Vec

FINAL_LEARNING_RATE = 1e-4
NOISE_EXPONENT = 0.75
"""Noise words are drawn by their counts to this power: Mikolov, Sutskever, Chen, Corrado & Dean 2013, section 2.2."""


def new_model(sentences: Iterable[Sequence[str]], settings: VectorsParams) -> Word2Vec:
    """An untrained gensim model with the vocabulary of the sentences.

    gensim's hash function is replaced: Python's differs between processes.
    """
    from gensim.models import Word2Vec

    logging.getLogger("gensim").setLevel(logging.CRITICAL)  # it complains of little text
    model = Word2Vec(
        sg=int(settings.algorithm == "skip_gram"),
        vector_size=settings.dimensions,
        window=settings.window,
        min_count=settings.min_count,
        negative=settings.negative,
        ns_exponent=NOISE_EXPONENT,
        sample=settings.subsample,
        alpha=settings.learning_rate,
        min_alpha=FINAL_LEARNING_RATE,
        epochs=settings.epochs,
        seed=settings.seed,
        workers=settings.workers,
        hashfxn=_hash,
    )
    model.build_vocab(sentences)
    return model


def _hash(text: str) -> int:
    return crc32(text.encode())


def train(model: Word2Vec, sentences: Iterable[Sequence[str]], callbacks: Sequence[Any] = ()) -> None:
    """All epochs over the sentences that the vocabulary was made of; nothing happens when it is empty."""
    if len(model.wv):
        model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs, callbacks=callbacks)


def table_of(model: Word2Vec) -> WordVectors:
    """The vectors of a gensim model."""
    counts = np.array([model.wv.get_vecattr(i, "count") for i in range(len(model.wv))], dtype=np.int64)
    return WordVectors(tuple(model.wv.index_to_key), counts, model.wv.vectors)
