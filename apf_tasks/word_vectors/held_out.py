"""How well word vectors tell the true word of a context from noise: the training's own question, on a fixed sample.

gensim's own loss is a running sum in float32 over the whole training: it stops growing when it is large, and no two
epochs can be compared by it. A sample that stays the same can.

Shapes: M predictions, W inputs of one, K noise words, V words, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from apf_tasks.models.word2vec import NOISE_EXPONENT
from apf_tasks.params.word_vectors import VectorsParams

MAX_PREDICTIONS = 20_000
CHUNK = 2_000
"""Predictions scored at a time."""
NONE = -1


@dataclass(frozen=True)
class HeldOutContexts:
    """Predictions to score: from the inputs, tell the target from the noise."""

    inputs: np.ndarray
    """(M, W) words predicted from; NONE where there are fewer."""
    targets: np.ndarray
    """(M,)"""
    noise: np.ndarray
    """(M, K)"""


class ContextScores(NamedTuple):
    """What a test says."""

    loss: float
    """Mean over the predictions, in nats. Before any training about (K + 1) ln 2: noise like the target is left out."""
    accuracy: float
    """Share of noise words that score below the true word, ties as half: 0.5 is chance."""


def draw_test(
    sentences: Iterable[np.ndarray], counts: np.ndarray, keep: np.ndarray, settings: VectorsParams
) -> HeldOutContexts:
    """At most MAX_PREDICTIONS drawn from sentences of word numbers, as the training draws them.

    `counts` (V,) are occurrences, `keep` (V,) the chance of an occurrence not to be skipped.
    """
    random = np.random.default_rng(settings.seed)
    one_by_one = settings.algorithm == "skip_gram"
    inputs: list[list[int]] = []
    targets: list[int] = []
    for whole in sentences:
        sentence = whole[random.random(len(whole)) < keep[whole]].tolist()
        for at, target in enumerate(sentence):
            reach = int(random.integers(1, settings.window + 1))
            around = sentence[max(0, at - reach) : at] + sentence[at + 1 : at + 1 + reach]
            contexts = [[word] for word in around] if one_by_one else [around] if around else []
            inputs += contexts
            targets += [target] * len(contexts)
    chosen = np.sort(random.permutation(len(targets))[:MAX_PREDICTIONS])
    width = max((len(inputs[i]) for i in chosen), default=1)
    padded = np.array([inputs[i] + [NONE] * (width - len(inputs[i])) for i in chosen], dtype=np.int64)
    weights = counts.astype(np.float64) ** NOISE_EXPONENT
    noise = random.choice(len(counts), size=(len(chosen), settings.negative), p=weights / weights.sum())
    return HeldOutContexts(padded.reshape(len(chosen), width), np.array(targets, dtype=np.int64)[chosen], noise)


def score_test(test: HeldOutContexts, vectors: np.ndarray, outputs: np.ndarray) -> ContextScores | None:
    """The scores with input vectors (V, D) and output vectors (V, D). None when the test is empty.

    The loss of one prediction is -ln σ(o · h) - Σ ln σ(-n · h), with h the mean of the input vectors, o the target's
    output vector and n those of the noise: equation 4 of Mikolov, Sutskever, Chen, Corrado & Dean 2013
    (arXiv:1310.4546). Noise that is the target itself does not count.
    """
    total, above, compared = 0.0, 0.0, 0
    for start in range(0, len(test.targets), CHUNK):
        part = slice(start, start + CHUNK)
        inputs, targets, noise = test.inputs[part], test.targets[part], test.noise[part]
        given = (inputs != NONE)[..., None]  # (m, W, 1)
        hidden = (vectors[inputs] * given).sum(axis=1) / given.sum(axis=1)  # (m, D)
        true = np.einsum("md,md->m", outputs[targets], hidden)  # (m,)
        false = np.einsum("mkd,md->mk", outputs[noise], hidden)  # (m, K)
        counted = noise != targets[:, None]
        total += float(np.logaddexp(0, -true).sum() + (np.logaddexp(0, false) * counted).sum())
        above += _above(true, false, counted)
        compared += int(counted.sum())
    return ContextScores(total / len(test.targets), above / compared) if compared else None


def frequency_accuracy(test: HeldOutContexts, counts: np.ndarray) -> float | None:
    """The accuracy of always choosing the more frequent word. None when the test is empty."""
    counted = test.noise != test.targets[:, None]
    compared = int(counted.sum())
    return _above(counts[test.targets], counts[test.noise], counted) / compared if compared else None


def _above(true: np.ndarray, false: np.ndarray, counted: np.ndarray) -> float:
    wins = (true[:, None] > false) + 0.5 * (true[:, None] == false)  # (m, K)
    return float((wins * counted).sum())
