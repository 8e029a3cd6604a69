"""Rows of any of the known shapes -> `text`, `tokens`, `tags`, or the reason why a row cannot be used.

Whatever the shape, a row becomes a text and entities by characters first; then the text is cut into words, and the
entities become tags on them.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from apf_tasks.evaluation.metrics.entities import OUTSIDE, Span, bioes_to_bio, repair_bio, spans
from apf_tasks.families._text_words import Place, cut, joined, located
from apf_tasks.families.ner.offsets import END, START, OffsetError, placed_spans
from apf_tasks.family import CheckedRows

if TYPE_CHECKING:
    from apf_tasks.families.ner.params import NerParams

_PREFIXED = re.compile(r"[BIESMLU]-.")
_LIKE_PREFIXED = re.compile(r"[A-Za-z][-_]")
"""What no plain type looks like."""
KIND = ("label", "type", "entity", "entity_type")
"""What mappings call the type of a span."""
SHORT_SURNAME = 2

Notes = Counter[str]


class RowError(Exception):
    """A row that cannot be used; the message is the reason."""


def check(params: NerParams, rows: pd.DataFrame) -> CheckedRows:
    """Canonical columns of every row, the reasons of the bad ones, and what was repaired."""
    notes: Notes = Counter()
    given = Counter(tag for tags in rows.get("tags", []) for tag in _as_list(tags) or [])
    known = {_named(tag, params): count for tag, count in given.items() if _is_named(tag, params)}
    known.pop(OUTSIDE, None)
    prefixed = 2 * sum(count for tag, count in known.items() if _PREFIXED.match(tag)) > sum(known.values())
    has_starts = any(tag[:2] in ("B-", "S-", "U-") for tag in known)
    found: list[tuple[Any, Any, Any]] = []
    reasons: list[str] = []
    records: list[dict[str, Any]] = rows.to_dict("records")  # type: ignore[assignment]
    for row in records:
        repaired: Notes = Counter()
        try:
            text, entities = _read(row, params, prefixed, repaired)
            found.append((text, *_tagged(text, entities, params, repaired)))
            reasons.append("")
        except RowError as problem:
            found.append((None, None, None))
            reasons.append(str(problem))
            continue
        if not has_starts:
            del repaired[ILLEGAL]  # all I: the scheme has no B
        notes += repaired
    checked = rows.copy()
    for name, values in zip(("text", "tokens", "tags"), zip(*found, strict=True) if found else ((),) * 3, strict=True):
        checked[name] = pd.Series(list(values), index=rows.index, dtype=object)
    if "compounds" in checked:
        checked["compounds"] = None  # they counted the words of the source
    return CheckedRows(checked, pd.Series(reasons, index=rows.index, dtype=object), dict(notes))


ILLEGAL = "tags that continue no entity, now its first"
TRIMMED = "spans trimmed of white space at their ends"
WIDENED = "spans widened to whole words"
COUNTED_IN = "spans whose offsets counted {}, now characters"
TWICE = "spans given twice"
REBUILT = "texts rebuilt from their tokens, because the given text differs"


def _read(row: Mapping[str, Any], params: NerParams, prefixed: bool, notes: Notes) -> tuple[str, list[Span]]:
    """The text of a row, and its entities by characters."""
    if row.get("spans") is not None or ("spans" in row and row.get("tokens") is None):
        return _from_spans(row, params, notes)
    tokens, tags = _listed(row.get("tokens"), "tokens"), _listed(row.get("tags"), "tags")
    if len(tokens) != len(tags):
        raise RowError(f"{len(tokens):,} tokens but {len(tags):,} tags")
    text, places = _placed(row.get("text"), tokens, params, notes)
    if not text.strip():
        raise RowError("no tokens")
    tags = [_named(tag, params) for tag in tags]
    if prefixed or not any(tag != OUTSIDE for tag in tags):
        found = _renamed(_from_scheme(tags, notes), params)
    elif params.entity_tags:
        found = _from_word_tags(tokens, tags, row.get("compounds") or [], params)
    else:
        found = _from_plain(tags, row)
    return text, [(places[first][0], places[last - 1][1], kind) for first, last, kind in found]


def _placed(text: Any, tokens: list[str], params: NerParams, notes: Notes) -> tuple[str, list[Place]]:
    """The text with the place of each token: the given one if it consists of them."""
    places = located(tokens, text) if isinstance(text, str) else None
    if isinstance(text, str) and places is not None:
        return text, places
    notes[REBUILT] += text is not None
    return joined(tokens, params.words)


def _listed(value: Any, name: str) -> list[str]:
    found = _as_list(value)
    if found is None:
        raise RowError(f"{name} are not a list of words")
    if not found:
        raise RowError(f"no {name}")
    return found


def _as_list(value: Any) -> list[str] | None:
    """A list of words: as it is, as JSON, or with blanks between. None for anything else."""
    if value is None:
        return []
    found = _from_json(value) if isinstance(value, str) and value.lstrip().startswith("[") else value
    found = found.split() if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(item, (str, int)) for item in found):
        return None
    return [str(item) for item in found]


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_named(tag: str, params: NerParams) -> bool:
    return not tag.isdecimal() or int(tag) < len(params.tag_names)


def _named(tag: str, params: NerParams) -> str:
    """The tag for its number."""
    if not _is_named(tag, params):
        count = f"{len(params.tag_names)} names" if params.tag_names else "no names"
        raise RowError(f"tag {tag} is a number, and family.tag_names has {count}")
    return params.tag_names[int(tag)] if tag.isdecimal() else tag


@lru_cache(maxsize=1 << 14)
def _problem(tag: str) -> bool:
    return tag != OUTSIDE and not _PREFIXED.match(tag)


def _from_scheme(tags: list[str], notes: Notes) -> list[Span]:
    """BIO, BIOES (BILOU, BMES) or IO. What follows an E or S of its type without a B starts an entity."""
    for at, tag in enumerate(tags, start=1):
        if _problem(tag):
            raise RowError(f"tag {at} is {tag!r}, not O, nor B, I, E, S (M, L, U), a hyphen and a type")
    plain = bioes_to_bio(tags)
    for at in range(1, len(tags)):
        if plain[at].startswith("I-") and tags[at - 1][:2] in ("E-", "S-", "L-", "U-"):
            notes[ILLEGAL] += tags[at][2:] == tags[at - 1][2:]
            plain[at] = f"B-{plain[at][2:]}"
    whole, repaired = repair_bio(plain)
    notes[ILLEGAL] += repaired
    return spans(whole)


def _from_plain(tags: list[str], row: Mapping[str, Any]) -> list[Span]:
    """Types without a prefix: a run of one is an entity."""
    if "compounds" in row:
        raise RowError("tags of words; family.entity_tags has to say which are entities, such as {nr: PER}")
    for at, tag in enumerate(tags, start=1):
        if _LIKE_PREFIXED.match(tag):
            raise RowError(f"tag {at} is {tag!r}, not O, nor B, I, E, S (M, L, U), a hyphen and a type")
    return spans(repair_bio([tag if tag == OUTSIDE else f"I-{tag}" for tag in tags])[0])


def _renamed(found: list[Span], params: NerParams) -> list[Span]:
    """The entities under the names of `entity_tags`; those of other types are none."""
    names = params.entity_tags
    return [(s, e, names[k]) for s, e, k in found if k in names] if names else found


def _from_word_tags(
    tokens: Sequence[str], tags: Sequence[str], compounds: Sequence[Mapping[str, Any]], params: NerParams
) -> list[Span]:
    """Every word with an entity's tag, a person's surname and given name as one; what is inside a compound is no more.

    Only compounds whose own tag is an entity's count.
    """
    names = params.entity_tags
    try:
        found = [(c["start"], c["end"], names[c["tag"]]) for c in compounds if c["tag"] in names]
    except (KeyError, TypeError) as error:
        raise RowError("compounds are not a list of start, end (counted in words) and tag") from error
    inside = {at for first, last, _ in found for at in range(first, last)}
    at = 0
    while at < len(tokens):
        length = _name_length(tokens, tags, at) if tags[at] in params.person_tags else 1
        if tags[at] in names and not inside.intersection(range(at, at + length)):
            found.append((at, at + length, names[tags[at]]))
        at += length
    return sorted(found)


def _name_length(tokens: Sequence[str], tags: Sequence[str], at: int) -> int:
    """2 when a surname and its given name stand here, else 1.

    A surname is one character; or two, where just two words stand together.
    """
    run = at
    while run < len(tokens) and tags[run] == tags[at]:
        run += 1
    alone = run - at == 2 and (at == 0 or tags[at - 1] != tags[at])
    surname = len(tokens[at]) == 1 or (alone and len(tokens[at]) == SHORT_SURNAME)
    return 2 if run - at > 1 and surname else 1


def _from_spans(row: Mapping[str, Any], params: NerParams, notes: Notes) -> tuple[str, list[Span]]:
    """A text with character spans, as [start, end, type] or as a mapping."""
    text, given = row.get("text"), row.get("spans")
    if not isinstance(text, str):
        raise RowError("no text")
    given = _from_json(given) if isinstance(given, str) else given
    if not isinstance(given, list):
        raise RowError("the list of spans is missing; a row without entities needs an empty one")
    try:
        given, unit = placed_spans(given, text)
    except OffsetError as problem:
        raise RowError(str(problem)) from problem
    notes[COUNTED_IN.format(unit)] += len(given) if unit else 0
    return text, _renamed([_span(span, at, text) for at, span in enumerate(given, start=1)], params)


def _span(span: Any, at: int, text: str) -> Span:
    parts = span
    if isinstance(span, Mapping):
        parts = [next((span[name] for name in names if name in span), None) for names in (START, END, KIND)]
    if isinstance(parts, (list, tuple)) and len(parts) == 3:
        start, end, kind = parts
        numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (start, end))
        if numbers and isinstance(kind, str) and kind.strip():
            if start < 0 or end > len(text):
                raise RowError(f"span {at}, {start} to {end}, is outside the text of {len(text):,} characters")
            if not text[start:end].strip():
                raise RowError(f"span {at}, {start} to {end}, is empty")
            return start, end, kind.strip()
    raise RowError(f"span {at} is not [start, end, type]")


def _tagged(text: str, entities: list[Span], params: NerParams, notes: Notes) -> tuple[list[str], list[str]]:
    """The words of the text, and the tag of each."""
    words = cut(text, params.words)
    tags = [OUTSIDE] * len(words)
    starts, ends = [s for s, _ in words], [e for _, e in words]
    notes[TWICE] += len(entities) - len(set(entities))
    before: Place = (0, 0)
    for start, end, kind in sorted(set(entities)):
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        if first == last:
            raise RowError(f"an entity of type {kind} without any character")
        if start < before[1]:
            raise RowError(f"spans overlap: {text[slice(*before)]!r} and {text[start:end]!r}")
        if tags[first] != OUTSIDE:
            raise RowError(f"a span begins inside the word {text[slice(*words[first])]!r}, which has one already")
        inner = text[start:end].strip()
        notes[TRIMMED] += len(inner) < end - start
        notes[WIDENED] += len(inner) < len(text[starts[first] : ends[last - 1]])
        tags[first:last] = [f"B-{kind}"] + [f"I-{kind}"] * (last - first - 1)
        before = (start, end)
    return [text[slice(*word)] for word in words], tags
