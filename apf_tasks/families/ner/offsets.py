"""Offsets of spans that say their own text: what they count is found out by that text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

START, END = ("start", "start_offset", "begin"), ("end", "end_offset")
TEXT = ("text", "surface", "mention", "value")
"""What mappings call the start, the end and the text of a span."""
UNITS = {"UTF-16 units": "utf-16-le", "bytes": "utf-8"}
"""What offsets may count besides characters, and the encoding in which they do."""


class OffsetError(Exception):
    """Offsets that do not lead to the text of their span; the message is the reason."""


def placed_spans(spans: Sequence[Any], text: str) -> tuple[list[Any], str]:
    """The spans with offsets in characters, and what they counted before: "" where that was characters already.

    Only spans with a text of their own are evidence. Raises OffsetError where no unit fits all of them.
    """
    known = [span for span in spans if isinstance(span, Mapping) and _own(span) is not None]
    if all(_fits(_offsets(span), span, text) for span in known):
        return list(spans), ""
    for unit, encoding in UNITS.items():
        if all(_fits(_moved(_offsets(span), text, encoding), span, text) for span in known):
            return [_with(span, _moved(_offsets(span), text, encoding)) for span in spans], unit
    at, span = next((i, s) for i, s in enumerate(spans, start=1) if s in known and not _fits(_offsets(s), s, text))
    start, end = _offsets(span) or (0, 0)
    found = f"{text[max(0, start) : max(0, end)]!r}, not {_own(span)!r}"
    raise OffsetError(
        f"span {at}, {start} to {end}, is {found}, in characters, UTF-16 units or bytes: mend its offsets"
    )


def _own(span: Mapping[str, Any]) -> str | None:
    found = next((span[name] for name in TEXT if isinstance(span.get(name), str)), None)
    return found if found is not None and found.strip() else None


def _offsets(span: Any) -> tuple[int, int] | None:
    if isinstance(span, Mapping):
        start, end = (next((span[name] for name in names if name in span), None) for names in (START, END))
    else:
        start, end = span[:2] if isinstance(span, (list, tuple)) and len(span) > 1 else (None, None)
    if not isinstance(start, int) or not isinstance(end, int) or isinstance(start, bool) or isinstance(end, bool):
        return None
    return start, end


def _fits(place: tuple[int, int] | None, span: Mapping[str, Any], text: str) -> bool:
    own = _own(span) or ""
    return place is not None and place[0] >= 0 and _plain(text[slice(*place)]) == _plain(own)


def _plain(text: str) -> str:
    """Tools write the text of a span with its case and white space changed."""
    return " ".join(text.split()).casefold()


def _moved(place: tuple[int, int] | None, text: str, encoding: str) -> tuple[int, int] | None:
    """The place in characters of one in units of the encoding; None where it cuts a character or is outside."""
    size = 2 if encoding == "utf-16-le" else 1
    data = text.encode(encoding)
    if place is None or not 0 <= place[0] <= place[1] <= len(data) // size:
        return None
    try:
        start, end = (len(data[: at * size].decode(encoding)) for at in place)
    except UnicodeDecodeError:
        return None
    return start, end


def _with(span: Any, place: tuple[int, int] | None) -> Any:
    """The span at another place; as it is where there is none, so that its own check rejects it."""
    if place is None:
        return span
    if not isinstance(span, Mapping):
        return [*place, *span[2:]]
    start, end = (next(name for name in names if name in span) for names in (START, END))
    return {**span, start: place[0], end: place[1]}
