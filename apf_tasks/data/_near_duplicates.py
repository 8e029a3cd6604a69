"""Which texts are almost the same: an exact Jaccard join over shingles, without comparing all pairs.

A shingle is six bytes of UTF-8 that begin at a character: six Latin letters, three Cyrillic ones or two Han
characters, so roughly a word in each script. Punctuation does not count. Six bytes fit into one integer, so shingles
are the integers themselves and never collide.

Candidates come from prefix filtering (Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007;
Xiao et al. 2008): with the shingles
of every text sorted from the rarest, two sets of similarity s or more must share one within the first
n - ceil(s * n) + 1. MinHash would be approximate here, and miss pairs that this finds.

N texts, V different shingles, P pairs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

SHINGLE_BYTES = 6
PAIRS_AT_ONCE = 20_000
ROUNDING = 1e-9
"""0.8 * 5 must not count as a little more than 4."""
LEFT_OUT = -1
_PUNCTUATION = re.compile(r"[\W_]+")


class Shingles:
    """The shingle sets of N texts, ready to be joined."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.matrix = _shingle_matrix(texts)  # (N, V)
        self.sizes: Indices = np.diff(self.matrix.indptr).astype(np.int64)  # (N,)

    def jaccard(self, left: Indices, right: Indices) -> NDArray[np.float64]:
        """Similarity of each pair of texts, (P,)."""
        chunks = [slice(at, at + PAIRS_AT_ONCE) for at in range(0, len(left), PAIRS_AT_ONCE)]
        shared = [self.matrix[left[c]].multiply(self.matrix[right[c]]).sum(axis=1) for c in chunks]
        common = np.concatenate(shared) if shared else np.empty(0)  # (P,)
        joined = self.sizes[left] + self.sizes[right] - common
        return np.asarray(common / np.maximum(joined, 1), dtype=np.float64)

    def groups(self, similarity: float) -> Indices:
        """Number of the connected group that each text belongs to, (N,); a text without near-duplicates is alone."""
        group = np.arange(len(self.sizes))
        for left, right in self._candidates(similarity, group):
            group[:] = merge_groups(group, *self._similar(left, right, similarity))
        return group

    def nearest(self, similarity: float, rows: Mask, among: Mask) -> Indices:
        """For each of `rows` a text of `among` that it is a near-duplicate of, else -1, (N,)."""
        found = np.full(len(self.sizes), -1)
        kind = np.select([among, rows], [0, 1], LEFT_OUT)
        for one, other in self._candidates(similarity, kind):
            first, second = self._similar(one, other, similarity)
            left, right = np.concatenate([first, second]), np.concatenate([second, first])
            wanted = kind[left] == 1
            found[left[wanted]] = right[wanted]
            kind[left[wanted]] = LEFT_OUT
        return found

    def _similar(self, left: Indices, right: Indices, similarity: float) -> tuple[Indices, Indices]:
        """The pairs that are similar enough, each once."""
        code = _distinct(left * len(self.sizes) + right)
        left, right = code // len(self.sizes), code % len(self.sizes)
        enough = self.jaccard(left, right) >= similarity - ROUNDING
        return left[enough], right[enough]

    def _candidates(self, similarity: float, kind: Indices) -> Iterator[tuple[Indices, Indices]]:
        """Batches of pairs of texts of different `kind` that can be similar enough; a pair may come more than once.

        Batch k pairs every text with the k-th next one, by size, that has the same rare shingle. The caller changes
        `kind` in place (equal kinds: settled; LEFT_OUT: of no interest), so copies of one template stay cheap.
        """
        row, shingle, rest = self._prefixes(similarity)
        size, begins = self.sizes[row], np.flatnonzero(np.diff(shingle, prepend=-1))
        share = similarity / (1 + similarity)  # a Jaccard of s means that s / (1 + s) of both sizes together is shared
        left, distance = np.arange(len(row)), 1
        while len(left := left[left + distance < len(row)]):
            right = left + distance
            possible = (shingle[left] == shingle[right]) & (size[left] >= similarity * size[right] - ROUNDING)
            left = left[possible]  # sorted by size: what fails here fails at every greater distance
            right = left + distance
            wanted = np.minimum(rest[left], rest[right]) >= share * (size[left] + size[right]) - ROUNDING
            one, other = row[left[wanted]], row[right[wanted]]
            open_pair = (kind[one] != kind[other]) & (np.minimum(kind[one], kind[other]) > LEFT_OUT)
            yield one[open_pair], other[open_pair]
            if distance.bit_count() == 1:  # now and then is enough: it costs as much as a batch
                left = left[_unsettled(kind[row], begins)[left]]
            distance += 1

    def _prefixes(self, similarity: float) -> tuple[Indices, Indices, Indices]:
        """All shingles of all prefixes, by shingle, then by size of the text: text, shingle, how many from it on.

        Where two texts have their first shingle in common, they cannot share more than what is left from it on.
        """
        row = np.repeat(np.arange(len(self.sizes)), self.sizes)
        length = self.sizes - np.ceil(similarity * self.sizes - ROUNDING) + 1
        position = np.arange(len(row)) - self.matrix.indptr[row]
        kept = position < length[row]
        row, shingle, rest = row[kept], self.matrix.indices[kept], (self.sizes[row] - position)[kept]
        order = np.lexsort((row, self.sizes[row], shingle))
        return row[order], shingle[order], rest[order]


def merge_groups(group: Indices, left: Indices, right: Indices) -> Indices:
    """Groups after the texts `left[i]` and `right[i]` came together for every i, (N,)."""
    if not len(left):
        return group
    shape = (len(group), len(group))
    graph = sparse.coo_array((np.ones(len(left), dtype=np.int8), (group[left], group[right])), shape=shape)
    _, merged = sparse.csgraph.connected_components(graph, directed=False)
    return np.asarray(merged[group], dtype=np.int64)


def _unsettled(kind: Indices, begins: Indices) -> Mask:
    """Which entries can still be the left of an open pair; a shingle's entries begin at each of `begins`."""
    lowest = np.minimum.reduceat(np.where(kind == LEFT_OUT, np.iinfo(np.int64).max, kind), begins)
    different = lowest < np.maximum.reduceat(kind, begins)
    unsettled: Mask = np.repeat(different, np.diff(begins, append=len(kind))) & (kind != LEFT_OUT)
    return unsettled


def _shingle_matrix(texts: Sequence[str]) -> sparse.csr_array:
    """(N, V) of ones; the columns run from the rarest shingle to the most frequent."""
    encoded = [(_PUNCTUATION.sub(" ", text).strip() or text).encode() for text in texts]
    # the end is padded: every character begins a shingle, so a text of one character has one too
    padding = bytes(SHINGLE_BYTES - 1)
    content = np.frombuffer(padding.join([*encoded, b""]), dtype=np.uint8)
    text_of = np.repeat(np.arange(len(encoded)), [len(text) + len(padding) for text in encoded])
    start = np.flatnonzero((content & 0xC0 != 0x80) & (content != 0))
    shingle = np.zeros(len(start), dtype=np.uint64)
    for offset in range(SHINGLE_BYTES):
        shingle = (shingle << np.uint64(8)) | content[start + offset]
    number, known = pd.factorize(shingle)
    rank = np.empty(len(known), dtype=np.int64)
    rank[np.argsort(np.bincount(number), kind="stable")] = np.arange(len(known))
    columns = max(len(known), 1)
    code = _distinct(text_of[start] * columns + rank[number])
    indptr = np.searchsorted(code, np.arange(len(encoded) + 1) * columns)
    ones = np.ones(len(code), dtype=np.int8)
    return sparse.csr_array((ones, code % columns, indptr), shape=(len(encoded), columns))


def _distinct(values: Indices) -> Indices:
    """Sorted, each once. (np.unique goes by hashing, and took 15 times as long on these.)"""
    values = np.sort(values)
    distinct: Indices = values[np.diff(values, prepend=-1) != 0]
    return distinct
