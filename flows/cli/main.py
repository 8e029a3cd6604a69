"""The `apf` command: parse, call a flow, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer
from rich.console import Console

from apf_tasks.errors import ApfError, InterruptedByUser
from flows.cli.data.check import check
from flows.cli.data.init import init
from flows.cli.data.new import new
from flows.cli.registry import registry
from flows.cli.registry.predict import predict
from flows.cli.runs.compare import compare
from flows.cli.runs.curve import curve
from flows.cli.runs.plan import plan
from flows.cli.runs.rerun import rerun
from flows.cli.runs.run import run
from flows.cli.runs.word_vectors import similar, vectors
from flows.cli.service import service

app = typer.Typer(
    help="Full-parameter fine-tuning: from one YAML file to a tested and registered model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: tuple[Callable[..., None], ...] = (
    *(init, run, vectors, curve, check, new, predict, similar, compare, rerun, plan),
    *registry.COMMANDS,
    *service.COMMANDS,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(registry.registry, name="registry")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. An ApfError is one readable message and exit status 1; 130 after an interruption."""
    try:
        app(arguments)
    except ApfError as error:
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}[/]", end=" ")
        print(error, file=sys.stderr)
        return 130 if isinstance(error, InterruptedByUser) else 1
    except Exception as error:
        away = type(error).__module__.startswith("httpx") or "Failed to reach API" in str(error)
        if not away:  # both are of Prefect's client alone; it asked for a while
            raise
        _without_prefect(error)
    return 0


def _without_prefect(error: Exception) -> NoReturn:
    """Prefect's server has gone away. Its client would now wait for minutes at the exit to tell it so."""
    url = os.environ.get("PREFECT_API_URL", "of its own")
    print(
        f"Prefect's server {url} does not answer ({error}). What was done is stored and in MLflow: the same command, "
        "with the server back or PREFECT_API_URL unset, finishes and shows it.",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
