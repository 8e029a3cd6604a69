"""`apf predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli._app import out


def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION")],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet with the model's input columns.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV, TSV, JSONL or Parquet to write.")],
) -> None:
    """Score a file of any size with a registered model: one output row per input row."""
    from apf_tasks.serving.predict_file import score_file
    from flows.orchestration._console import console_logging

    console_logging()
    found = score_file(model, file, output)
    failed = f", {found.failed:,} of them without a prediction: see the column `error`" if found.failed else ""
    out.print(f"{found.rows:,} rows → {output}{failed}")
