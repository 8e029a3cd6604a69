"""Ways in which a data file can be odd or damaged. Each takes its bytes, a source of chance, and its format."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random, str], bytes]

TEXTS = (
    *"\0\ufeff\u2028\u202e\u3000\ufffe\x7f\x1b\t\r\n \\\"'",
    "e\u0301" * 50,
    "a" * 100_000,
    *(
        "NaN",
        "null",
        "1e999",
        "-0",
        "{}",
        "[]",
        '""',
        "\r\n",
        "=cmd()",
        "true",
        "2026-02-30",
        "%s",
        "{text}",
        "${HOME}",
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 10**400, 1e308, float("inf"), float("nan"), -0.0, 0.1),
    *("", " ", "x" * 100_000, "\ud800", "2026-01-01"),
    *([], {}, [[]], [None], {"a": {"b": 1}}, [1, "a", None, {}], ["\ud800"], [2**70], {"": ""}, ["a"] * 5000),
)
KEYS = ("", "a.b", "$file", "text", "role", "row_id", "_file", "_number", "_label", "x" * 1000)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "gb18030", "latin-1", "cp1252", "utf-8-sig", "big5", "utf-7", "shift_jis")
LINES = (b"", b" ", b",", b"\t", b",,,,", b"{}", b"null", b"[]", b"O", b"a/n", b"msgid", b'msgid "', b'msgstr[9] "x"')
NUMBERS = (
    "9" * 5000,
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "0" * 300 + "1",
    "1_000",
    "0x10",
    "1,5",
    "1e-400",
    "9" * 30,
)


def flip(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """Some bytes are others."""
    found = bytearray(raw)
    for _ in range(dice.choice((1, 3, 20, 200)) if raw else 0):
        found[dice.randrange(len(found))] = dice.randrange(256)
    return bytes(found)


def cut(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """The end is missing, or a part of the middle."""
    start = dice.randrange(len(raw) + 1)
    return raw[:start] + raw[start + dice.choice((1, 10, 1000, len(raw))) :]


def noise(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """Something else altogether."""
    return dice.randbytes(dice.choice((0, 1, 2, 3, 64, 5000)))


def insert(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """Texts that mean something elsewhere, and bytes that are no text."""
    for _ in range(dice.choice((1, 5, 50))):
        at = dice.randrange(len(raw) + 1)
        text = dice.choice(TEXTS).encode("utf-8", "surrogatepass")
        raw = raw[:at] + dice.choice((text, text, b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe4\xb8")) + raw[at:]
    return raw


def shuffle(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """Its lines in another order, or several times."""
    lines = raw.split(b"\n")
    dice.shuffle(lines)
    return b"\n".join(lines * dice.choice((1, 1, 5)))


def encode(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """In another encoding."""
    return raw.decode("utf-8", "replace").encode(dice.choice(ENCODINGS), "replace")


def end_lines(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """With other ends of lines."""
    return raw.replace(b"\n", dice.choice((b"\r\n", b"\r", b"\n\n", b"\n\r", b"\x0b", b"\x85")))


def quote(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """With quotation marks where none belong, and lines that are hardly any."""
    lines = raw.split(b"\n")
    for i, line in enumerate(lines):
        at = dice.randrange(len(line) + 1)
        if dice.random() < 0.2:
            lines[i] = line[:at] + dice.choice((b'"', b'""', b'"""', b'",', b"'", b'\\"')) + line[at:]
        elif dice.random() < 0.2:
            lines[i] = dice.choice(LINES)
    return b"\n".join(lines)


def revalue(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """JSON of other values and shapes."""
    if kind not in ("jsonl", "json"):
        return insert(raw, dice, kind)
    lines = raw.split(b"\n") if kind == "jsonl" else [raw]
    found = [json.dumps(_other(json.loads(line), dice), ensure_ascii=dice.random() < 0.5) for line in lines if line]
    return "\n".join(found).encode("utf-8", "surrogatepass")


def _other(value: Any, dice: random.Random, depth: int = 0) -> Any:
    if depth and dice.random() < 0.06:
        return dice.choice(VALUES)
    if isinstance(value, list):
        return [_other(one, dice, depth + 1) for one in value] * dice.choice((1, 1, 1, 1, 0, 2))
    if not isinstance(value, dict):
        return value
    found = {key: _other(one, dice, depth + 1) for key, one in value.items() if dice.random() > 0.02}
    return found | ({dice.choice(KEYS): dice.choice(VALUES)} if dice.random() < 0.05 else {})


def nest(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """With a line that goes very deep."""
    deep = dice.choice((100, 900, 990, 1500, 5000, 100_000))
    shapes = ("[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "[" * deep)
    half = '{"text": ' + "[" * deep + '"\\ud800"' + "]" * deep + ', "label": "x"}'
    line = dice.choice((*shapes, half)).encode()
    lines = raw.split(b"\n")
    lines.insert(dice.randrange(len(lines) + 1), line)
    return dice.choice((b"\n".join(lines), line))


def renumber(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """With numbers that are hardly any."""
    number = dice.choice(NUMBERS)
    text = raw.decode("utf-8", "replace")
    return re.sub(r"\d+", lambda found: number if dice.random() < 0.2 else found[0], text).encode()


def widen(raw: bytes, dice: random.Random, kind: str) -> bytes:
    """With thousands of columns, or a very long line."""
    if kind in ("csv", "tsv"):
        names = ["text", "label", *(f"c{i}" for i in range(3000))]
        return ("," if kind == "csv" else "\t").join(names).encode() + b"\n" + raw
    return raw + (json.dumps({f"k{i}": i for i in range(5000)}).encode() if kind == "jsonl" else b" x" * 100_000)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip, cut, noise, insert, shuffle, encode, end_lines, quote, revalue, revalue, nest, renumber, widen),
)
