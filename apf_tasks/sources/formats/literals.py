"""Cells of a table that hold lists and objects as text: JSON, or what Python prints of them."""

from __future__ import annotations

import ast
import io
import itertools
import json
import tokenize
from collections.abc import Sequence
from typing import Any

LOOKED_AT = 100
"""Cells that have to look like a list or an object, before all of them are read so."""
CLOSES = {"[": "]", "{": "}"}


def read_cells(cells: Sequence[str | None]) -> list[Any]:
    """The cells as what they stand for, where the first of them all look like lists or objects; else as they are.

    A cell that cannot be read stays text. So do numpy's arrays as it prints them: without commas, two texts beside each
    other would be read as one.
    """
    first = list(itertools.islice((cell for cell in cells if cell), LOOKED_AT))
    if not first or not all(map(_looks_nested, first)):
        return list(cells)
    return [cell if cell is None else _read(cell) for cell in cells]


def _looks_nested(cell: str) -> bool:
    text = cell.strip()
    return len(text) > 1 and CLOSES.get(text[0]) == text[-1]


def _read(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(_Plain().visit(ast.parse(cell.strip(), mode="eval")))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return cell
    return cell if lacks_commas(cell) else found


def lacks_commas(cell: str) -> bool:
    """Whether two texts stand beside each other without a comma, as numpy prints an array of them."""
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(cell.strip()).readline)]
    except (tokenize.TokenError, SyntaxError):
        return False
    return any(pair == (tokenize.STRING, tokenize.STRING) for pair in itertools.pairwise(kinds))


class _Plain(ast.NodeTransformer):
    """`array([…], dtype=object)` as its list, a tuple as a list, `nan` as None."""

    def visit_Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id == "array" and len(node.args) == 1:
            return self.visit(node.args[0])
        return node

    def visit_Tuple(self, node: ast.Tuple) -> Any:
        self.generic_visit(node)
        return ast.List(node.elts, node.ctx)

    def visit_Name(self, node: ast.Name) -> Any:
        return ast.Constant(None) if node.id == "nan" else node
