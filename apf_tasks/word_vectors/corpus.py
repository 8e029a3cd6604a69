"""The first stage of word vectors: the texts of a source -> sentences of words, some of them held out."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from apf_tasks import words
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.errors import DataError
from apf_tasks.params.data import DataParams
from apf_tasks.params.word_vectors import CorpusParams
from apf_tasks.runtime.progress import progress
from apf_tasks.sources.formats.table import Rejected, Table
from apf_tasks.sources.reading import read_source
from apf_tasks.word_vectors.artifacts import Corpus

SENTENCES, HELD_OUT, REJECTED = "sentences.txt", "held_out.txt", "rejected.jsonl"
MAX_SENTENCE_WORDS = 10_000
"""gensim drops what comes later in a sentence without a word, so longer ones are cut into pieces."""
LANGUAGE_ROWS = 2_000
"""Rows whose characters tell the language."""
SHOWN_PLACES = 3

Text = str | tuple[str, ...]
"""A text, or the words of one."""
Place = tuple[str, int]
"""File and row."""


def read_corpus(out: Path, data: DataParams, corpus: CorpusParams) -> Corpus:
    """One line per sentence with its words between spaces. Equal texts count once; published splits are all read.

    Raises DataError when too many rows have no words.
    """
    places, rejected, total = _texts(data)
    repeated = total - len(places) - len(rejected)
    texts = _limit(places, data.max_rows)
    language = _language(list(texts), corpus)
    counts: Counter[str] = Counter()
    lines: dict[str, list[str]] = {SENTENCES: [], HELD_OUT: []}
    with progress("words", len(texts), "rows") as advance:
        for done, (text, place) in enumerate(texts.items(), start=1):
            found = list(_pieces(_sentences(text, language)))
            if not found:
                rejected.append(Rejected(*place, "no words"))
            for sentence in found:
                counts.update(sentence)
                line = " ".join(sentence)
                lines[HELD_OUT if _share(line) < corpus.held_out_fraction else SENTENCES].append(line)
            advance(done, f"{len(counts):,} different words")
    _refuse(rejected, total, data, out)
    for name, written in lines.items():
        (out / name).write_text("".join(line + "\n" for line in written), encoding="utf-8")
    return Corpus(
        path=out,
        fingerprint=fingerprint_files(out, list(lines)),
        language=language,
        rows=len(texts),
        repeated_rows=repeated,
        rejected_rows=len(rejected),
        sentences=len(lines[SENTENCES]),
        held_out_sentences=len(lines[HELD_OUT]),
        tokens=counts.total(),
        distinct_words=len(counts),
    )


def _sentences(text: Text, language: words.Language) -> list[list[str]]:
    return words.listed_sentences(text) if isinstance(text, tuple) else words.sentences(text, language)


def _texts(data: DataParams) -> tuple[dict[Text, Place], list[Rejected], int]:
    """Each different text with its first place, what cannot be used, and the number of rows."""
    places: dict[Text, Place] = {}
    rejected: list[Rejected] = []
    total = 0
    for _, table in read_source(data):
        rejected += table.rejected
        total += len(table.numbers) + len(table.rejected)
        for number, value in zip(table.numbers, _column(table, data), strict=True):
            text = _text(value)
            if text is None:
                rejected.append(
                    Rejected(table.name, number, "neither a text nor a list of words" if value else "no text")
                )
            else:
                places.setdefault(text, (table.name, number))
    return places, rejected, total


def _text(value: Any) -> Text | None:
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return tuple(value)
    return None


def _column(table: Table, data: DataParams) -> list[Any]:
    """The values of the text column. Raises DataError that names the columns there are."""
    wanted = data.columns.get("text", "text")
    if isinstance(wanted, int) and 0 <= wanted < len(table.columns):
        return table.values(wanted)
    if str(wanted) in table.columns:
        return table.values(table.columns.index(str(wanted)))
    if not table.numbers:
        return []  # nothing in it could be read; the reasons are in the list of rejected rows
    near = difflib.get_close_matches(str(wanted), table.columns, n=1, cutoff=0.5)
    do = f"Write data.columns: {{text: {near[0] if near else 'NAME OR NUMBER'}}}."
    raise DataError(table.name, f"a column {str(wanted)!r}", "the columns " + ", ".join(table.columns), do)


def _limit(texts: Mapping[Text, Place], max_rows: int | None) -> dict[Text, Place]:
    """The texts with the smallest hashes, in their order: when data grow, most of the choice stays as it was."""
    if max_rows is None or len(texts) <= max_rows:
        return dict(texts)
    chosen = sorted(texts, key=lambda text: (_share(json.dumps(text, ensure_ascii=False)), texts[text]))[:max_rows]
    kept = set(chosen)
    return {text: place for text, place in texts.items() if text in kept}


def _share(text: str) -> float:
    """A number from 0 to 1 that the text alone decides, evenly spread."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _language(texts: Sequence[Text], corpus: CorpusParams) -> words.Language:
    if corpus.language != "auto":
        return corpus.language
    step = max(1, len(texts) // LANGUAGE_ROWS)
    sample = [text if isinstance(text, str) else " ".join(text) for text in texts[::step]]
    return "zh" if words.is_unspaced(sample) else "spaced"


def _pieces(found: Sequence[list[str]]) -> Iterator[list[str]]:
    for sentence in found:
        for start in range(0, len(sentence), MAX_SENTENCE_WORDS):
            yield sentence[start : start + MAX_SENTENCE_WORDS]


def _refuse(rejected: list[Rejected], total: int, data: DataParams, out: Path) -> None:
    """Write the list of rejected rows; stop when it is too long, or nothing is left."""
    rejected.sort(key=lambda r: (r.file, r.row))
    lines = [json.dumps({"file": r.file, "row": r.row, "reason": r.reason}, ensure_ascii=False) for r in rejected]
    (out / REJECTED).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if total and len(rejected) <= data.max_rejected * total:
        return
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in Counter(r.reason for r in rejected).most_common(5))
    places = ", ".join(f"{r.file}:{r.row}" for r in rejected[:SHOWN_PLACES])
    found = f"{len(rejected):,} of {total:,} ({reasons}), first at {places}" if rejected else "none"
    expected = f"rows, at most {data.max_rejected:.1%} of them unusable (data.max_rejected)"
    do = f"The complete list is {out / REJECTED}. Repair the rows, or raise data.max_rejected."
    raise DataError(f"data.source {data.source}", expected, found, do)
