"""What every command shares: the console, and the arguments that many commands take."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from apf_tasks.artifacts import RegisteredModel

out = Console()


ParamsFile = Annotated[str, typer.Argument(help="A params file, or the bare name of one in params/.")]


Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides: train.learning_rate=3e-5", show_default=False)
]


AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def print_page(out: Console, page: str) -> None:
    """Where MLflow shows a run, when that is known: an address, or what follows the address of a server."""
    if page:
        where = "" if page.startswith("http") else " at the address that `apf ui` prints"
        out.print(f"Page: {page}{where}", markup=False, soft_wrap=True)


def run_line(run_id: str, registered: RegisteredModel) -> str:
    """A run as people are told of it; beside one that MLflow is still to get, the run that registered the model."""
    if run_id:
        return f"run {run_id}"
    return f"registered by run {registered.run_id} · this run: to be recorded (`apf reconcile` delivers it)"
