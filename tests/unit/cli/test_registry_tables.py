"""Tables of registered models: a name is never cut, as it could not be copied."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from flows.cli.registry import _output


def test_a_long_name_is_folded_not_cut() -> None:
    table = _output._table("model", "on test")
    table.add_row("causal_lm-instructions-of-a-very-long-name", "perplexity 1.8755 [1.8193, 1.9378]")
    console = Console(width=40, file=StringIO())
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    names = "".join(line[: text.index("on test")].strip() for line in text.splitlines()[1:])
    assert "causal_lm-instructions-of-a-very-long-name" in names, text
