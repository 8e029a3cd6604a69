"""What every command shares: the console, and the arguments that many commands take."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

out = Console()


ParamsFile = Annotated[str, typer.Argument(help="A params file, or the bare name of one in params/.")]


Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides: train.learning_rate=3e-5", show_default=False)
]


AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
