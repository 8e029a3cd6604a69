"""One token and its tag per line, a blank line after each sentence: CoNLL-2003 and its like.

Format: Tjong Kim Sang and De Meulder 2003 (arXiv:cs/0306050), section 2.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from apf_tasks.sources.formats.table import Rejected, Table, numbered_lines, table_of

DOCUMENT = "-DOCSTART-"


def read_conll(text: str, name: str) -> Table:
    """Columns `tokens` and `tags` (first and last column of the lines; tags as they stand), one row per sentence.

    A file with -DOCSTART- lines also has `document`, the file and how many of those lines came before. A sentence with
    a line of another width than most is rejected.
    """
    lines = [(number, _fields(line)) for number, line in numbered_lines(text)]
    plain = [fields for _, fields in lines if fields and not _is_mark(fields) and not fields[0].startswith(DOCUMENT)]
    width = Counter(map(len, plain)).most_common(1)[0][0] if plain else 0
    tags = {fields[-1] for fields in plain if len(fields) == width}
    columns: dict[str, list[Any]] = {"tokens": [], "tags": [], "document": []}
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
        if sentence and (problem := _problem(sentence, width)):
            rejected.append(Rejected(name, start, problem))
        elif sentence:
            numbers.append(start)
            columns["tokens"].append([line[0] for line in sentence])
            columns["tags"].append([line[-1] for line in sentence])
            columns["document"].append(f"{name}:{documents}")
        documents += opens
        sentence = []
    if not documents:
        del columns["document"]
    return table_of(name, columns, numbers, rejected)


def _fields(line: str) -> list[str]:
    """By tabs where there are any, else by blanks. Other white space, such as U+3000, may be a token."""
    line = line.rstrip(" \t")
    return line.split("\t") if "\t" in line else re.split(" +", line) if line else []


def _is_mark(fields: list[str]) -> bool:
    """Whether the line starts with a lone #: a comment, or the token "#"."""
    return fields[0] == "#" or fields[0].startswith("# ")


def _problem(sentence: list[list[str]], width: int) -> str:
    for fields in sentence:
        if len(fields) < 2:
            return "a line with a single column"
        if len(fields) != width:
            return f"a line with {len(fields)} columns instead of {width}"
        if not fields[0] or not fields[-1]:
            return "a tag without its token"
    return ""
