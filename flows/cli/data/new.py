"""`apf new`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from apf_tasks.params.data import DataParams
from apf_tasks.sources.data import ALL
from flows.cli._app import out

if TYPE_CHECKING:
    from apf_tasks.quickstart.draft import ParamsDraft


def new(
    family: Annotated[str, typer.Argument(help="Kind of problem: sentiment, ner, translation, …")],
    file: Annotated[str, typer.Argument(help="A file, a folder, a pattern in quotes, train.{en,zh}, or hub:NAME.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write the params file.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="text=body: name a column that is guessed wrongly.")] = None,
    encoding: Annotated[str, typer.Option(help="Text encoding of the file.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing params file.")] = False,
) -> None:
    """Write a params file for a data file: guess its columns, the model and the settings, with reasons."""
    from apf_tasks.params.file import parse_overrides
    from apf_tasks.quickstart.draft import draft
    from apf_tasks.quickstart.write import default_path, refuse_existing, write

    path = output or default_path(family, file)
    refuse_existing(path, force)
    options = {name: str(value) for name, value in parse_overrides(column or ()).items()}
    found = draft(family, file, options, encoding)
    write(found, path, force)
    print_draft(out, found, path)


FEW_ROWS = 200
SHOWN_LABELS = 5


def print_draft(out: Console, draft: ParamsDraft, path: Path) -> None:
    """The columns with the reason for each, rows, language, doubts, and the next two commands."""
    from apf_tasks.quickstart.page import counted

    if draft.found.guesses:
        table = Table("column", "← of the file", "why", "examples", box=None, pad_edge=False)
        for guess in draft.found.guesses:
            few = counted(guess.source.few)
            examples = few if few else "\n".join(guess.source.examples(2, 40))
            table.add_row(guess.column, escape(str(guess.source.name)), escape(guess.why), escape(examples))
        out.print(table)
        out.print()
    _print_facts(out, draft)
    for doubt in _doubts(draft):
        out.print(f"[yellow]{escape(doubt)}[/]")
    out.print(f"\nWrote {path}. Review it, then run:")
    shown = f"'{path}'" if " " in str(path) else path
    out.print(f"  apf check {shown}\n  apf run {shown}", markup=False, highlight=False)


def _print_facts(out: Console, draft: ParamsDraft) -> None:
    from apf_tasks.quickstart.page import flow

    if not draft.rows:
        out.print(f"{draft.source} was not inspected: the columns are the family's own names.", highlight=False)
        out.print(f"starts from {draft.base.name} ({draft.base.about})", markup=False, highlight=False)
        return
    counts = ", ".join(f"{n:,}" if role == ALL else f"{role} {n:,}" for role, n in draft.rows.items())
    options = "".join(f", {name}: {flow(option.value)}" for name, option in draft.options.items())
    out.print(
        f"{counts} rows · {draft.language_name} · {draft.found.family.name}{options}", markup=False, highlight=False
    )
    out.print(f"starts from {draft.base.name} ({draft.base.about})", markup=False, highlight=False)
    if note := draft.looked.notes.get("source"):
        out.print(f"source: {note}", markup=False, highlight=False)
    for what, count in draft.left_out.items():
        out.print(f"left out: {count:,} × {what}", markup=False, highlight=False)
    if draft.other_labels:
        others = ", ".join(draft.other_labels[:SHOWN_LABELS])
        out.print(f"other columns that may be the label: {others}; --column label=NAME", markup=False, highlight=False)
    if draft.unused:
        out.print(f"not used: {', '.join(draft.unused)}", markup=False, highlight=False)


def _doubts(draft: ParamsDraft) -> list[str]:
    """What a person should look at before running."""
    doubts: list[str] = []
    if draft.bad_share > DataParams.model_fields["max_rejected"].default:
        most = DataParams.model_fields["max_rejected"].default
        doubts.append(
            f"{draft.bad_share:.1%} of the rows cannot be used ({draft.problems}). `apf run` stops above {most:.0%}: "
            "mend them, or say data.max_rejected."
        )
    if draft.rows and draft.train_examples < FEW_ROWS:
        doubts.append(f"Only about {draft.train_examples} examples to train on: scores will be uncertain.")
    doubts += [f"Labels that look alike are merged: {', '.join(names)}." for names in draft.look_alikes]
    if "tag_names" in draft.options:
        doubts.append("The tags are numbers: put their names into family.tag_names.")
    return doubts
