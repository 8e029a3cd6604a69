"""Scoring a file with a registered model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from apf_tasks.errors import DataError

CHUNK_ROWS = 5_000
WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


def predict_file(model_uri: str, file: Path, output: Path) -> int:
    """Write the input's columns with the predictions beside them; returns the number of rows, which is the input's."""
    from apf_tasks.progress import progress
    from apf_tasks.registry import load_registered

    if output.suffix not in WRITERS:
        do = "Choose one of these endings."
        raise DataError(str(output), "a file ending in " + ", ".join(WRITERS), output.suffix or "no ending", do)
    rows = read_rows(file)
    model = load_registered(model_uri)
    parts = []
    with progress("predict", len(rows), "rows") as advance:
        for start in range(0, len(rows), CHUNK_ROWS):
            parts.append(model.predict(rows.iloc[start : start + CHUNK_ROWS]))
            advance(min(start + CHUNK_ROWS, len(rows)), file.name)
    answers = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    beside = output.with_name(f".{output.name}.partial")
    WRITERS[output.suffix](pd.concat([rows.reset_index(drop=True), answers], axis=1), beside)
    beside.replace(output)
    return len(rows)
