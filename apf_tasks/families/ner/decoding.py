"""Scores of tags -> tags, and tags -> entities of a text. W words, E entity types.

Tags are numbered O, B-a, I-a, B-b, I-b, …
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apf_tasks.evaluation.metrics.entities import OUTSIDE, Span, spans
from apf_tasks.families._text_words import Place


def tag_names(types: Sequence[str]) -> list[str]:
    """The tags of these types in the order of the model's outputs."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]


def viterbi_decode(scores: np.ndarray) -> np.ndarray:
    """The sequence of tags with the highest sum of scores (W, 2E + 1) in which every I-X continues an X; (W,).

    Viterbi 1967: the best way to each tag from the best ways to the tags that may stand before it.
    """
    words, tags = scores.shape
    if not words:
        return np.zeros(0, dtype=np.int64)
    inner = np.arange(2, tags, 2)  # I-X; B-X is the number before
    before = np.zeros((words, tags), dtype=np.int64)
    total = scores[0].astype(np.float64)
    total[inner] = -np.inf
    for word in range(1, words):
        before[word] = total.argmax()
        before[word, inner] = np.where(total[inner - 1] > total[inner], inner - 1, inner)
        total = total[before[word]] + scores[word]
    path = np.zeros(words, dtype=np.int64)
    path[-1] = total.argmax()
    for word in range(words - 1, 0, -1):
        path[word - 1] = before[word, path[word]]
    return path


def entities_json(text: str, words: Sequence[Place], tags: Sequence[str]) -> str:
    """The entities of a text as JSON: [{"start", "end", "type", "text"}], start and end counted in characters."""
    found = [(words[first][0], words[last - 1][1], kind) for first, last, kind in spans(tags)]
    listed = [{"start": s, "end": e, "type": kind, "text": text[s:e]} for s, e, kind in found]
    return json.dumps(listed, ensure_ascii=False)


def gazetteer(known: Sequence[tuple[Sequence[str], Sequence[str]]], asked: Sequence[Sequence[str]]) -> list[list[str]]:
    """Tags by a list of the entities of `known` (tokens, tags): from the left, the longest one that stands there.

    An entity has the type that it has most often; of equally frequent ones the first in the alphabet.
    """
    kinds: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for tokens, tags in known:
        for first, end, kind in spans(tags):
            kinds[tuple(tokens[first:end])][kind] += 1
    listed = {words: min(count, key=lambda k: (-count[k], k)) for words, count in kinds.items()}
    lengths = sorted({len(words) for words in listed}, reverse=True)
    found = []
    for tokens in asked:
        tags = [OUTSIDE] * len(tokens)
        for first, end, kind in _matches(tokens, listed, lengths):
            tags[first:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - first - 1)
        found.append(tags)
    return found


def _matches(tokens: Sequence[str], listed: dict[tuple[str, ...], str], lengths: Sequence[int]) -> Iterator[Span]:
    at = 0
    while at < len(tokens):
        keys = (tuple(tokens[at : at + length]) for length in lengths if at + length <= len(tokens))
        words = next((key for key in keys if key in listed), None)
        if words is not None:
            yield at, at + len(words), listed[words]
        at += len(words) if words else 1


def frequent_mistakes(
    texts: Sequence[str],
    words: Sequence[Sequence[Place]],
    references: Sequence[Sequence[str]],
    predictions: Sequence[Sequence[str]],
    most: int,
) -> dict[str, list[dict[str, Any]]]:
    """The entities that were missed, and those that were wrongly found, most often."""
    counters: dict[str, Counter[tuple[str, str]]] = {"most_missed": Counter(), "most_wrongly_found": Counter()}
    for text, places, reference, prediction in zip(texts, words, references, predictions, strict=True):
        true, found = set(spans(reference)), set(spans(prediction))
        for counter, only in zip(counters.values(), (true - found, found - true), strict=True):
            counter.update((text[places[first][0] : places[last - 1][1]], kind) for first, last, kind in only)
    return {
        name: [
            {"entity": entity, "type": kind, "times": times}
            for (entity, kind), times in sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:most]
        ]
        for name, counter in counters.items()
    }


def draw_scores(per_type: Mapping[str, Mapping[str, float]], kinds: Mapping[str, int], path: Path) -> None:
    """A picture: precision and recall of each type, and how many entities of which kind of error there are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, max(3.0, 1.2 + 0.55 * len(per_type))), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(per_type)
    for shift, score, colour in ((-0.2, "precision", "#4c72b0"), (0.2, "recall", "#dd8452")):
        at = np.arange(len(names)) + shift
        bars = left.barh(at, [per_type[name][score] for name in names], height=0.38, label=score, color=colour)
        left.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    left.set_yticks(range(len(names)), [f"{name}  ({per_type[name]['support']:,.0f})" for name in names])
    left.set(xlim=(0, 1.12), title="by type (entities in the reference)")
    left.invert_yaxis()
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    labels = [kind.replace("_", " ") for kind in kinds]
    bars = right.barh(labels, list(kinds.values()), color=["#55a868", *["#c44e52"] * (len(kinds) - 1)])
    right.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    right.margins(x=0.12)
    right.invert_yaxis()
    right.set_title("entities")
    figure.savefig(path, dpi=110)
