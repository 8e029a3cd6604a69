"""How well the content of a column fits what a family asks for.

A fit is (points, why). Points above 0 (up to 20) make a column acceptable whatever its name; with 0 it needs a name
that is usual; below 0 it needs the very name. None: it cannot be that column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from apf_tasks.data.columns import FILE_COLUMN
from apf_tasks.families.causal_lm.turns import as_messages
from apf_tasks.family import Family
from apf_tasks.quickstart.columns import LONG_LABEL, MOST_LABELS, Column, separator_of, spread

Fit = tuple[float, str] | None


def label(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """One of a few values."""
    count, scale = len(column.counts), column.scale
    if column.name == FILE_COLUMN:
        return 8, f"one value per file, {count} files"
    if column.kind not in ("text", "number") or count < 2 or column.length > LONG_LABEL:
        return None
    if (scale and not scale.whole and count > 10) or count > max(20, len(column.values) / 2):
        return None
    few = count <= min(MOST_LABELS, max(2, len(column.values) / 4))
    several = separator_of(column) is not None
    return (20 - count / 10 if few and not several else -1 if several else 0), f"{count} different values"


def labels(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of labels, or several of them in a cell."""
    distinct = column.items
    if isinstance(column.name, tuple):
        others = [c for c in others if c.kind == "text" and not c.derived and len(c.few) > 1 and not c.is_prose]
        return (10 if others else 25), f"columns of 0 and 1, one for each of {len(column.name)} labels"
    if column.kind == "words" and 2 <= len(distinct) <= max(MOST_LABELS, len(column.sample) / 2):
        return 15, f"lists of {len(distinct)} different values"
    separator = separator_of(column) if column.kind == "text" else None
    return (10, f"several values in a cell, {separator!r} between them") if separator else None


def score(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Numbers on a scale."""
    scale = column.scale
    counted = scale and scale.whole and scale.distinct == len(column.values)
    if scale is None or scale.distinct < 3 or counted:
        return None
    points = 15 if scale.distinct > 20 or not scale.whole else 1
    return points, f"numbers from {scale.low:g} to {scale.high:g}, {scale.distinct} different ones"


def prose(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """The longest text."""
    if column.kind == "words" and not any("list of sentences" in what for what in family.columns.values()):
        return None
    if column.kind not in ("text", "words"):
        return None
    if not column.is_prose:
        return -1, "text"
    if column.is_phrase:
        return 0, "text"
    longest = max((other.length for other in others if other.is_prose and not other.is_phrase), default=1.0)
    if column.length >= longest:
        return 20, f"the longest text, {column.length:.0f} characters on average"
    return 10 + 8 * column.length / longest, f"text, {column.length:.0f} characters on average"


def named_prose(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text that its name alone tells from other text."""
    found = prose(column, family, others)
    return found and (min(0.0, found[0]), found[1])


def short_prose(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text beside longer text."""
    found = prose(column, family, others)
    return found and (found[0] / 2, f"text, {column.length:.0f} characters on average")


def question(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text that ends in a question mark."""
    if column.kind != "text":
        return None
    asking = sum(text.rstrip().endswith(("?", "？")) for text in column.texts) / max(1, len(column.texts))
    return (20 * asking if asking >= 0.3 else 0), f"{asking:.0%} end in a question mark"


def answer(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Text that stands in a longer text of its row."""
    if column.kind not in ("text", "number", "words", "object", "list"):
        return None
    best = 0.0
    for other in others:
        if other is not column and other.kind == "text" and column.kind == "text" and other.length > column.length:
            pairs = spread(list(zip(column.values, other.values, strict=True)), 200)
            inside = [v in o for v, o in pairs if isinstance(v, str) and isinstance(o, str)]
            best = max(best, sum(inside) / max(1, len(inside)))
    return (15 * best if best >= 0.5 else 0), f"{best:.0%} occur in a longer text" if best else "answers"


def tokens(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of many different words."""
    distinct = len(column.items)
    if column.kind == "words" and not all(str(i).isdecimal() for v in column.sample[:20] for i in v):
        return min(20.0, 5 + distinct / 100), f"lists of words, {distinct:,} different ones"
    return (0, "words with blanks between") if column.kind == "text" and column.is_prose else None


def tags(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of few different values; or the same as text with blanks between."""
    cells = [v if isinstance(v, list) else v.split() for v in column.sample if isinstance(v, (list, str))]
    distinct = {str(item) for cell in cells for item in cell}
    if column.kind not in ("words", "text") or len(distinct) > MOST_LABELS:
        return None
    return (15 if column.kind == "words" else 0), f"lists of {len(distinct)} different values"


def spans(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Lists of [start, end, type], or of objects with these."""
    inner = [item for value in column.sample if isinstance(value, list) for item in value]
    like = [isinstance(item, dict) or (isinstance(item, list) and len(item) == 3) for item in inner]
    return (15, "lists of start, end and type") if like and all(like) else None


def messages(column: Column, family: Family, others: Sequence[Column]) -> Fit:
    """Turns of conversations, in any format that is read."""
    talks = [as_messages(value) for value in column.sample if isinstance(value, (list, dict)) and value]
    first = [talk[0] if isinstance(talk, list) and talk else None for talk in talks]
    good = first and all(isinstance(item, dict) and item.get("role") is not None for item in first)
    return (20, "lists of turns") if good else None


def _of_kind(*kinds: str) -> Callable[[Column, Family, Sequence[Column]], Fit]:
    return lambda column, family, others: (0, "") if column.kind in kinds else None


FITS: Mapping[str, Callable[[Column, Family, Sequence[Column]], Fit]] = {
    "label": label,
    "labels": labels,
    "score": score,
    "tokens": tokens,
    "tags": tags,
    "spans": spans,
    "text_pair": named_prose,
    "summary": short_prose,
    "highlights": short_prose,
    "prompt": named_prose,
    "response": named_prose,
    "question": question,
    "answer": answer,
    "answers": _of_kind("object", "list", "words"),
    "messages": messages,
    "system": _of_kind("text"),
    "input": _of_kind("text", "number", "words"),
    "history": _of_kind("list", "words", "text"),
    "tools": _of_kind("list", "object", "text"),
    "answer_start": _of_kind("number"),
    "translation": _of_kind("object"),
    "compounds": _of_kind("list", "words"),
    "is_impossible": label,
}
"""A family's column -> how content fits it. Columns not named here hold prose."""
