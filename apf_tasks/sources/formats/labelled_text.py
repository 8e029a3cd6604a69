"""Lines of text with their labels in them: fastText's, and bracketed trees of which the root has the label."""

from __future__ import annotations

import re
from typing import Any

from apf_tasks.sources.formats.table import Rejected, Table, numbered_lines, table_of

MARK = "__label__"
"""What a label begins with in the files of fastText (Joulin et al. 2017, arXiv:1607.01759, and its documents)."""
TREE = re.compile(r"\(\s*([^\s()]+)\s.*\)")
"""A tree on a line, as the Stanford Sentiment Treebank has them (Socher et al. 2013, D13-1170)."""
LEAF = re.compile(r"\(\s*[^\s()]+\s+([^\s()]+)\s*\)")
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def read_fasttext(text: str, name: str) -> Table:
    """Columns `text`, and `label` where every line has one, else `labels`, a list that may be empty."""
    numbers: list[int] = []
    texts: list[Any] = []
    labels: list[list[str]] = []
    for number, line in numbered_lines(text):
        words = line.split()
        own = [word for word in words if word.startswith(MARK)]
        if words:
            numbers.append(number)
            texts.append(" ".join(word for word in words if not word.startswith(MARK)) or None)
            labels.append([label.removeprefix(MARK) for label in own])
    if all(len(found) == 1 for found in labels):
        return table_of(name, {"text": texts, "label": [found[0] for found in labels]}, numbers, [])
    return table_of(name, {"text": texts, "labels": labels}, numbers, [])


def read_trees(text: str, name: str) -> Table:
    """Columns `text`, the leaves, and `label`, that of the root."""
    numbers: list[int] = []
    rejected: list[Rejected] = []
    columns: dict[str, list[Any]] = {"text": [], "label": []}
    for number, line in numbered_lines(text):
        tree = line.strip()
        found, leaves = TREE.fullmatch(tree), LEAF.findall(tree)
        if not tree:
            continue
        if found is None or not leaves or tree.count("(") != tree.count(")"):
            rejected.append(Rejected(name, number, "no tree in brackets"))
            continue
        numbers.append(number)
        columns["text"].append(" ".join(BRACKETS.get(leaf, leaf) for leaf in leaves))
        columns["label"].append(found[1])
    return table_of(name, columns, numbers, rejected)
