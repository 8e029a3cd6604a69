"""One token and its tag per line, a blank line after each sentence: CoNLL-2003 and its like, GermEval, CoNLL-U.

Formats: Tjong Kim Sang and De Meulder 2003 (arXiv:cs/0306050), section 2; Benikova et al. 2014, GermEval 2014, section
3; Nivre et al. 2020 (arXiv:2004.10643), section 3.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

from apf_tasks.sources.formats.table import Rejected, Table, numbered_lines, table_of

DOCUMENT = "-DOCSTART-"
UNIVERSAL = ("id", "tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""The columns of CoNLL-U."""
NO_WORD = re.compile(r"\d+[-.]\d+")
"""The number of a contraction or of a word that was left out, in CoNLL-U: its parts have lines of their own."""


def read_conll(text: str, name: str) -> Table:
    """Columns `tokens` and `tags` (first and last column of the lines; tags as they stand), one row per sentence.

    Where the first column counts the words of the sentence, the token stands in the second. In CoNLL-U the tags are
    those of column UPOS, and the other columns are there by their names; else the tags stand in the third, and further
    ones are `tags_2`, `tags_3`. A file with -DOCSTART- lines also has `document`, the file and how many of those lines
    came before. A sentence with a line of another width than most is rejected.
    """
    lines = [(number, _fields(line)) for number, line in numbered_lines(text)]
    plain = [fields for _, fields in lines if fields and not _is_mark(fields) and not fields[0].startswith(DOCUMENT)]
    width = Counter(map(len, plain)).most_common(1)[0][0] if plain else 0
    tags = {fields[-1] for fields in plain if len(fields) == width}
    places = _places(plain, width)
    if places["tokens"] == 1:
        lines = [(number, fields) for number, fields in lines if not fields or not NO_WORD.fullmatch(fields[0])]
    columns: dict[str, list[Any]] = {column: [] for column in (*places, "document")}
    numbers: list[int] = []
    rejected: list[Rejected] = []
    documents = start = 0
    sentence: list[list[str]] = []
    for number, fields in [*lines, (len(lines) + 1, [])]:
        opens = bool(fields) and fields[0].startswith(DOCUMENT)
        if fields and not opens:
            # "#" is a token too: it is one when the line has the width of the others and ends in one of their tags
            if sentence or not _is_mark(fields) or (len(fields) == width and fields[-1] in tags):
                start = start if sentence else number
                sentence.append(fields)
            continue
        if sentence and (problem := _problem(sentence, width, places)):
            rejected.append(Rejected(name, start, problem))
        elif sentence:
            numbers.append(start)
            for column, at in places.items():
                columns[column].append([line[at] for line in sentence])
            columns["document"].append(f"{name}:{documents}")
        documents += opens
        sentence = []
    if not documents:
        del columns["document"]
    return table_of(name, columns, numbers, rejected)


def _places(plain: list[list[str]], width: int) -> dict[str, int]:
    """Column -> which field of a line it is."""
    if width < len(("number", "token", "tag")) or not _counts([f[0] for f in plain if len(f) == width]):
        return {"tokens": 0, "tags": -1}
    if width == len(UNIVERSAL):
        return {"tokens": 1, "tags": 3} | {c: at for at, c in enumerate(UNIVERSAL) if c not in ("id", "tokens")}
    return {"tokens": 1, "tags": 2} | {f"tags_{at - 1}": at for at in range(3, width)}


def _counts(firsts: list[str]) -> bool:
    """Whether they count words: each number is one more than the last, or 1."""
    firsts = [text for text in firsts if not NO_WORD.fullmatch(text)]
    if not firsts or firsts[0] != "1" or not all(text.isdecimal() for text in firsts):
        return False
    numbers = list(map(int, firsts))
    return all(later in (1, number + 1) for number, later in itertools.pairwise(numbers)) and len(set(numbers)) > 1


def _fields(line: str) -> list[str]:
    """By tabs where there are any, else by blanks. Other white space, such as U+3000, may be a token."""
    line = line.rstrip(" \t")
    return line.split("\t") if "\t" in line else re.split(" +", line) if line else []


def _is_mark(fields: list[str]) -> bool:
    """Whether the line starts with a lone #: a comment, or the token "#"."""
    return fields[0] == "#" or fields[0].startswith("# ")


def _problem(sentence: list[list[str]], width: int, places: dict[str, int]) -> str:
    for fields in sentence:
        if len(fields) < 2:
            return "a line with a single column"
        if len(fields) != width:
            return f"a line with {len(fields)} columns instead of {width}"
        if not fields[places["tokens"]] or not fields[places["tags"]]:
            return "a tag without its token"
    return ""
