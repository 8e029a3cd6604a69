"""Word vectors in use: similarity, nearest words, analogies. V words of D numbers each."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apf_tasks.errors import DataError
from apf_tasks.words import normalise

if TYPE_CHECKING:
    import pandas as pd

VECTORS, VOCABULARY = "vectors.safetensors", "vocabulary.json"
NEAREST = 10
"""Nearest words that a served model gives when it is not told how many."""
SPELLING_CUTOFF = 0.6
"""Least share of equal characters (difflib's ratio) of a word that may have been meant."""


class Neighbour(NamedTuple):
    """A word and its cosine with what was asked for."""

    word: str
    cosine: float


@dataclass(frozen=True)
class WordVectors:
    """The vectors of a vocabulary, most frequent word first."""

    words: tuple[str, ...]
    counts: np.ndarray
    """(V,) occurrences in the text that was trained on."""
    vectors: np.ndarray
    """(V, D) float32."""

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Word -> its row."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def unit(self) -> np.ndarray:
        """(V, D) the vectors at length 1, so that a cosine is a product."""
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(lengths > 0, lengths, 1)

    def position(self, word: str) -> int:
        """The row of a word, however it is capitalised. Raises DataError that names the nearest spelling."""
        found = self.positions.get(normalise(word).strip())
        if found is not None:
            return found
        near = nearest_spelling(normalise(word).strip(), self.words)
        do = f"Did you mean {near!r}?" if near else "Ask for a word of the text it was trained on."
        raise DataError("word vectors", f"one of {len(self.words):,} known words", repr(word), do)


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two vectors (D,): a · b / (‖a‖ ‖b‖), from -1 to 1; 1 is the same direction.

    Mikolov, Chen, Corrado & Dean 2013 (arXiv:1301.3781), section 4, search for the nearest word by it. A vector of
    zeros has no direction: 0.
    """
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.dot(a, b)) / lengths if lengths > 0 else 0.0


def similarity(table: WordVectors, first: str, second: str) -> float:
    """The cosine of two words. Raises DataError for one that is not known."""
    return cosine_similarity(table.vectors[table.position(first)], table.vectors[table.position(second)])


def nearest(table: WordVectors, word: str, count: int) -> list[Neighbour]:
    """The `count` words with the largest cosine with `word`, itself left out. Raises DataError when it is not known."""
    at = table.position(word)
    return _best(table, table.unit @ table.unit[at], {at}, count)


def analogy(table: WordVectors, a: str, b: str, c: str, count: int) -> list[Neighbour]:
    """The words that may be to c as b is to a, best first. Raises DataError for a word that is not known.

    They have the largest cosine with b - a + c, all vectors at length 1 and the three given words left out: Mikolov,
    Yih & Zweig 2013 (NAACL, "Linguistic Regularities in Continuous Space Word Representations"), section 4.
    """
    cosines, given = _analogy_cosines(table, a, b, c)
    return _best(table, cosines, given, count)


def analogy_rank(table: WordVectors, a: str, b: str, c: str, d: str) -> int:
    """The place of d, from 1, among all words that `analogy` would give. Raises DataError for an unknown word."""
    cosines, given = _analogy_cosines(table, a, b, c)
    cosines[list(given)] = -np.inf
    return int(np.sum(cosines > cosines[table.position(d)])) + 1


def _analogy_cosines(table: WordVectors, a: str, b: str, c: str) -> tuple[np.ndarray, set[int]]:
    first, second, third = (table.position(word) for word in (a, b, c))
    direction = table.unit[second] - table.unit[first] + table.unit[third]  # (D,)
    return table.unit @ (direction / max(float(np.linalg.norm(direction)), 1e-12)), {first, second, third}


def _best(table: WordVectors, cosines: np.ndarray, left_out: set[int], count: int) -> list[Neighbour]:
    order = np.argsort(-cosines, kind="stable")[: count + len(left_out)]
    return [Neighbour(table.words[i], float(cosines[i])) for i in order if i not in left_out][:count]


def answer(table: WordVectors, word: str, other: str, count: int) -> dict[str, Any]:
    """What a served model says of one row; an unknown word is said in `problem`, and the rest is empty.

    `nearest`: JSON list of {"word", "cosine"}. `similarity`: the cosine of both words, NaN when `other` is "".
    """
    try:
        found = [{"word": n.word, "cosine": round(n.cosine, 6)} for n in nearest(table, word, count)]
        cosine = similarity(table, word, other) if other else math.nan
    except DataError as error:
        return {"nearest": "[]", "similarity": math.nan, "problem": f"unknown word {error.found}. {error.do}"}
    return {"nearest": json.dumps(found, ensure_ascii=False), "similarity": cosine, "problem": ""}


def answer_rows(table: WordVectors, rows: pd.DataFrame, count: int = NEAREST) -> pd.DataFrame:
    """What a served model says of rows with `word` and, where there is one, `other`: an answer each."""
    import pandas as pd

    words = rows["word"].fillna("").astype(str)
    others = rows["other"].fillna("").astype(str) if "other" in rows else [""] * len(words)
    answers = [answer(table, word, other, count) for word, other in zip(words, others, strict=True)]
    frame = pd.DataFrame(answers, columns=["nearest", "similarity", "problem"])
    # what is served is JSON, which has no NaN
    return frame.assign(similarity=frame["similarity"].astype(object).where(frame["similarity"].notna(), None))


def nearest_spelling(word: str, known: Sequence[str]) -> str | None:
    """The known word that is spelt most like `word`; else the most frequent one that contains it or lies in it."""
    alike = difflib.get_close_matches(word, known, n=1, cutoff=SPELLING_CUTOFF)
    inside = (k for k in known if word and len(k) > 1 and (word in k or k in word))
    return next(iter(alike), None) or next(inside, None)


def write_word_vectors(folder: Path, table: WordVectors) -> None:
    """Write `vectors.safetensors` (V, D) and `vocabulary.json` (words and their counts, in the order of the rows)."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": np.ascontiguousarray(table.vectors, dtype=np.float32)}, folder / VECTORS)
    vocabulary = {"words": table.words, "counts": table.counts.tolist()}
    (folder / VOCABULARY).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")


def read_word_vectors(folder: Path) -> WordVectors:
    """What `write_word_vectors` wrote."""
    from safetensors.numpy import load_file

    vocabulary = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
    counts = np.array(vocabulary["counts"], dtype=np.int64)
    return WordVectors(tuple(vocabulary["words"]), counts, load_file(folder / VECTORS)["vectors"])
