"""Scoring a file with a registered model."""

from __future__ import annotations

from collections.abc import Callable
from csv import QUOTE_NONE
from pathlib import Path

import pandas as pd

from apf_tasks.errors import DataError

CHUNK_ROWS = 5_000
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t", quoting=QUOTE_NONE, escapechar="\\"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


def predict_file(model_uri: str, file: Path, output: Path) -> int:
    """Write the input's columns with the predictions beside them; returns the number of rows, which is the input's."""
    from apf_tasks.progress import progress
    from apf_tasks.registry import load_registered

    if output.suffix not in WRITERS:
        do = "Choose one of these endings for -o."
        raise DataError(str(output), "a file ending in " + ", ".join(WRITERS), output.suffix or "no ending", do)
    rows = read_rows(file)
    model = load_registered(model_uri)
    if taken := set(rows.columns) & set(model.metadata.get_output_schema().input_names()):
        do = "Rename them in the input: the predictions come under these names."
        raise DataError(str(file), "no columns called as the predictions", ", ".join(sorted(taken)), do)
    parts = [model.predict(rows.head(0))]
    with progress("predict", len(rows), "rows") as advance:
        for start in range(0, len(rows), CHUNK_ROWS):
            parts.append(model.predict(rows.iloc[start : start + CHUNK_ROWS]))
            advance(min(start + CHUNK_ROWS, len(rows)), file.name)
    answers = pd.concat([rows, pd.concat(parts, ignore_index=True)], axis=1)
    beside = output.with_name(f".{output.name}.partial")
    try:
        WRITERS[output.suffix](answers, beside)
    except OSError as error:
        raise DataError(str(output), "a place to write", str(error), "Choose another path for -o.") from error
    beside.replace(output)
    return len(rows)


def read_rows(file: Path) -> pd.DataFrame:
    """All rows of a CSV, TSV, JSONL or Parquet file as text. Raises DataError when one cannot be read."""
    from apf_tasks.ingestion import plain
    from apf_tasks.params import DataParams
    from apf_tasks.reading import read_file
    from apf_tasks.sources import missing

    if not file.is_file():
        raise missing("input", file)
    table = read_file(file, file.name, DataParams(source=str(file)))
    if table.rejected:
        first = table.rejected[0]
        found = f"{len(table.rejected):,} that cannot be read, first row {first.row}: {first.reason}"
        raise DataError(str(file), "readable rows", found, "Repair them: every row gets its prediction.")
    columns = {name: [plain(value) for value in table.values(i)] for i, name in enumerate(table.columns)}
    return pd.DataFrame(columns)
