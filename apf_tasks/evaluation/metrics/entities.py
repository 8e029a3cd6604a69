"""Entities from word tags: spans, tag schemes, scores by type, kinds of errors. N rows, W words, E entity types.

A row is a list of tags, one per word: O outside, B-X the first word of an entity of type X, I-X a further one
(Ramshaw & Marcus 1995; B on every first word: Tjong Kim Sang & Veenstra 1999, "IOB2"). Spans and scores are those of
seqeval with mode="strict", scheme=IOB2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.classification import ratio
from apf_tasks.evaluation.metrics.rows import check_rows

Span = tuple[int, int, str]
"""First word, word after the last, type."""

OUTSIDE = "O"
ERROR_KINDS = ("exact", "wrong_type", "wrong_boundary", "wrong_both", "missed", "spurious")
_BIO_PREFIX = {"B": "B", "S": "B", "U": "B", "I": "I", "M": "I", "E": "I", "L": "I"}
"""Prefix in BIOES, BILOU or BMES -> prefix in BIO."""


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a row in order. An I-X that continues no X belongs to none: `repair_bio` first if it should."""
    found: list[Span] = []
    start, kind = 0, ""
    for at, tag in enumerate((*tags, OUTSIDE)):
        if kind and tag != f"I-{kind}":
            found.append((start, at, kind))
            kind = ""
        if tag.startswith("B-"):
            start, kind = at, tag[2:]
    return found


def repair_bio(tags: Sequence[str]) -> tuple[list[str], int]:
    """(tags, how many were changed): an I-X after O or another type becomes B-X. Also turns IOB1 into IOB2."""
    repaired: list[str] = []
    for tag in tags:
        starts = tag.startswith("I-") and (not repaired or repaired[-1][2:] != tag[2:])
        repaired.append(f"B-{tag[2:]}" if starts else tag)
    return repaired, sum(new != old for new, old in zip(repaired, tags, strict=True))


def bioes_to_bio(tags: Sequence[str]) -> list[str]:
    """BIOES, BILOU or BMES -> BIO: S and U become B; E, L and M become I. Other tags stay as they are."""
    return [f"{_BIO_PREFIX[t[0]]}-{t[2:]}" if t[1:2] == "-" and t[0] in _BIO_PREFIX else t for t in tags]


def entity_types(label_names: Sequence[str]) -> list[str]:
    """The sorted types of a set of BIO tags; names that are not all tags are types already."""
    tags = all(name == OUTSIDE or name[:2] in ("B-", "I-") for name in label_names)
    return sorted({name[2:] if tags else name for name in label_names} - {"", OUTSIDE})


def entity_statistics(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], label_names: Sequence[str]
) -> Counts:
    """(N, 3 * (E + 1)): per type the correct, the predicted and the reference entities of each row.

    `label_names`: tags or types. Types outside them share the last place, so that an entity of a type that train did
    not have still counts as missed. An entity is correct when first word, last word and type are. Raises DataError
    when a row has not one predicted tag per word.
    """
    check_rows(references, predictions)
    types = {name: at for at, name in enumerate(entity_types(label_names))}
    statistics = np.zeros((len(references), 3, len(types) + 1))  # (N, 3, E + 1)
    for at, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        if len(reference) != len(prediction):
            expected, found = f"{len(reference):,} tags for row {at + 1}", f"{len(prediction):,}"
            raise DataError("score", expected, found, "Predict a tag for every word, including truncated ones.")
        true, predicted = set(spans(reference)), set(spans(prediction))
        for place, entities in enumerate((true & predicted, predicted, true)):
            for *_, kind in entities:
                statistics[at, place, types.get(kind, len(types))] += 1
    return statistics.reshape(len(references), -1)


def entity_scores(sums: np.ndarray) -> Scores:
    """precision, recall, f1 over all entities and macro_f1, from sums of `entity_statistics`.

    (..., 3 * (E + 1)) -> (...). 0 where a denominator is 0. macro_f1 is the plain mean over the types that occur among
    the references or the predictions, as in seqeval.
    """
    correct, predicted, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)  # each (..., E + 1)
    per_type_f1 = ratio(2 * correct, predicted + true)
    occurring = (predicted + true > 0).sum(-1).astype(np.float64)
    all_correct, all_predicted, all_true = correct.sum(-1), predicted.sum(-1), true.sum(-1)
    return {
        "f1": ratio(2 * all_correct, all_predicted + all_true),
        "precision": ratio(all_correct, all_predicted),
        "recall": ratio(all_correct, all_true),
        "macro_f1": ratio(per_type_f1.sum(-1), occurring),
    }


def per_type(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], label_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Type -> precision, recall, f1, support (reference entities) and predicted (predicted entities)."""
    sums = entity_statistics(references, predictions, label_names).sum(axis=0).reshape(3, -1)  # (3, E + 1)
    table = {}
    for name, (correct, predicted, true) in zip(entity_types(label_names), sums.T[:, :, None], strict=False):
        scores = entity_scores(np.concatenate([correct, predicted, true]))
        table[name] = {key: float(scores[key]) for key in ("precision", "recall", "f1")}
        table[name] |= {"support": float(true[0]), "predicted": float(predicted[0])}
    return table


def error_kinds(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> dict[str, int]:
    """How many entities are exact, have the wrong type, boundary or both, are missed or spurious.

    Each entity counts once: exact pairs are taken out first, then pairs with the same words, then overlapping pairs of
    the same type, then overlapping pairs; the larger overlap first, then the earlier one. References that are left are
    missed, predictions that are left spurious. All but `spurious` add up to the references, all but `missed` to the
    predictions.
    """
    check_rows(references, predictions)
    counts = dict.fromkeys(ERROR_KINDS, 0)
    for reference, prediction in zip(references, predictions, strict=True):
        true, predicted = spans(reference), spans(prediction)
        for kind, fits in _FITS.items():
            pairs = [(-_overlap(t, p), t, p) for t in true for p in predicted if fits(t, p)]
            for _, t, p in sorted(pairs):
                if t in true and p in predicted:
                    true.remove(t)
                    predicted.remove(p)
                    counts[kind] += 1
        counts["missed"] += len(true)
        counts["spurious"] += len(predicted)
    return counts


def _overlap(a: Span, b: Span) -> int:
    return min(a[1], b[1]) - max(a[0], b[0])


_FITS: dict[str, Callable[[Span, Span], bool]] = {
    "exact": lambda t, p: t == p,
    "wrong_type": lambda t, p: t[:2] == p[:2],
    "wrong_boundary": lambda t, p: t[2] == p[2] and _overlap(t, p) > 0,
    "wrong_both": lambda t, p: _overlap(t, p) > 0,
}
