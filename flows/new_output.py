"""What `apf new` says."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from apf_tasks.new_params import Draft
from apf_tasks.new_params.page import counted, flow
from apf_tasks.params import DataParams
from apf_tasks.sources import ALL

FEW_ROWS = 200


def print_draft(out: Console, draft: Draft, path: Path) -> None:
    """The columns with the reason for each, rows, language, doubts, and the next two commands."""
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
    out.print(f"\n{path} is written. Read it, then:")
    shown = f"'{path}'" if " " in str(path) else path
    out.print(f"  apf check {shown}\n  apf run {shown}", markup=False, highlight=False)


def _print_facts(out: Console, draft: Draft) -> None:
    if not draft.rows:
        out.print(f"{draft.source} was not looked at: the columns are the family's own names.", highlight=False)
        out.print(f"starts from {draft.base.name} ({draft.base.about})", markup=False, highlight=False)
        return
    counts = ", ".join(f"{n:,}" if role == ALL else f"{role} {n:,}" for role, n in draft.rows.items())
    options = "".join(f", {name}: {flow(option.value)}" for name, option in draft.options.items())
    out.print(f"{counts} rows · {draft.spoken} · {draft.found.family.name}{options}", markup=False, highlight=False)
    out.print(f"starts from {draft.base.name} ({draft.base.about})", markup=False, highlight=False)
    if note := draft.looked.notes.get("source"):
        out.print(f"source: {note}", markup=False, highlight=False)
    if draft.unused:
        out.print(f"not used: {', '.join(draft.unused)}", markup=False, highlight=False)


def _doubts(draft: Draft) -> list[str]:
    """What a person should look at before running."""
    doubts: list[str] = []
    if draft.bad_share > DataParams.model_fields["max_rejected"].default:
        doubts.append(f"{draft.bad_share:.0%} of the rows cannot be used: {draft.problems}")
    if draft.rows and draft.train_examples < FEW_ROWS:
        doubts.append(f"Only about {draft.train_examples} examples to train on: scores will be uncertain.")
    if "tag_names" in draft.options:
        doubts.append("The tags are numbers: put their names into family.tag_names.")
    return doubts
