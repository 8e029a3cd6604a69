"""Bytes of a text file -> text: UTF-8 unless it says otherwise, detected when it is clear, asked for when it is not."""

from __future__ import annotations

import codecs
import logging
from pathlib import Path

from apf_tasks.errors import DataError
from apf_tasks.sources.compression import opened, read_bytes

logger = logging.getLogger("apf")

SAMPLE_BYTES = 1 << 18
CANDIDATES = ("gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1252", "cp1250", "cp1251", "cp1253", "koi8_r")
NOT_BELIEVED = frozenset({"cp932", "euc_jp", "cp949"})
"""The detector takes Japanese for Korean and the other way round; these are proposed, never chosen."""
MARGIN = 5.0
"""By how many points (of likeness to a language minus disorder) the best guess must lead to be believed."""
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: Path, encoding: str) -> str:
    """The text of a file. Raises DataError that names the byte which cannot be read and what to write in the params."""
    raw = read_bytes(path)
    if encoding != "auto":
        return _decode_with(raw, encoding, path)
    for mark, marked in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return _decode_with(raw, marked, path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _detect(raw, error, path)
    if text.count("\0") > len(text) // 10:
        raise DataError(
            str(path), "text", "zero bytes", "If it is UTF-16, write data.encoding: utf-16-le (or utf-16-be)."
        )
    return text


def is_utf8_file(path: Path) -> bool:
    """Whether the beginning of a file is UTF-8, but for a few lines. What others are in, only the whole file tells."""
    with opened(path) as file:
        sample = file.read(SAMPLE_BYTES)
    if any(sample.startswith(mark) for mark, marked in BYTE_ORDER_MARKS if marked != "utf-8-sig") or b"\0" in sample:
        return False
    lines = sample.split(b"\n")
    if len(sample) == SAMPLE_BYTES:
        lines.pop()  # a character may have been cut
    lines = [line for line in lines if not line.isascii()]
    return sum(_is_utf8(line) for line in lines) * 2 >= len(lines)


def _decode_with(raw: bytes, encoding: str, path: Path) -> str:
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        do = "Write a name Python knows: utf-8, gb18030, big5, cp1252, …"
        raise DataError("data.encoding", "a known encoding", repr(encoding), do) from None
    except UnicodeDecodeError as error:
        do = "Write data.encoding: auto, or the encoding the file was saved with, or repair that byte."
        raise DataError(str(path), f"text in {encoding}", _place(raw, error), do) from None


def _detect(raw: bytes, error: UnicodeDecodeError, path: Path) -> str:
    """Text in the encoding that is clearly more likely than the others."""
    lines = [line for line in raw.split(b"\n") if not line.isascii()]
    if sum(_is_utf8(line) for line in lines) * 2 >= len(lines):
        do = "Most of the file is UTF-8: repair that byte, or write data.encoding if it is something else."
        raise DataError(str(path), "text in UTF-8", _place(raw, error), do)
    guesses = _guesses(b"\n".join(lines)[:SAMPLE_BYTES])
    clear = guesses and guesses[0][1] not in NOT_BELIEVED
    if clear and (len(guesses) == 1 or guesses[0][0] - guesses[1][0] >= MARGIN):
        encoding = guesses[0][1]
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError as later:
            error = later
        else:
            logger.info("%s is not UTF-8: read as %s", path.name, encoding)
            return text
    likely = ", ".join(name for _, name in guesses[:3]) or "gb18030 for Chinese, cp1252 for Western European"
    do = f"Write data.encoding; likely: {likely}."
    raise DataError(str(path), "text with an unambiguous encoding", _place(raw, error), do)


def _guesses(sample: bytes) -> list[tuple[float, str]]:
    """(points, encoding), best first; encodings that give the same text count once."""
    from charset_normalizer import from_bytes

    found: list[tuple[float, str]] = []
    for match in from_bytes(sample, cp_isolation=list(CANDIDATES)):
        same = match.could_be_from_charset
        name = "cp1252" if "cp1252" in same else match.encoding
        found.append((match.percent_coherence - match.percent_chaos, name))
    return sorted(found, reverse=True)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _place(raw: bytes, error: UnicodeDecodeError) -> str:
    line = raw.count(b"\n", 0, error.start) + 1
    return f"byte 0x{raw[error.start]:02x} at offset {error.start} (line {line}), which is not {error.encoding}"
