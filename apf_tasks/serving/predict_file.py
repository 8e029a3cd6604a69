"""A file scored with a registered model: streamed, resumed where it stopped, one row out for every row in."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from apf_tasks.cache import fingerprints
from apf_tasks.errors import DataError
from apf_tasks.evaluation.registered.model import Registered, load_registered
from apf_tasks.runtime.progress import progress
from apf_tasks.serving._row_chunks import Row, chunks
from apf_tasks.tracking.registry import LoggedVersion

logger = logging.getLogger("apf")

ROW, ERROR = "row", "error"
"""Columns beside those of the input and of the model: where a row stands in the file, and why it has no prediction."""
STATE = "state.json"
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")


class Scored(NamedTuple):
    """What came of a file."""

    rows: int
    failed: int
    """Rows without a prediction."""


def score_file(model_uri: str, file: Path, output: Path) -> Scored:
    """Write the input's columns with the predictions beside them, a row for every row, in their order.

    What is done lies beside the output until the end: the same command continues from there. Raises DataError,
    RegistryError.
    """
    if output.suffix not in ENDINGS:
        do = "Choose one of these endings for -o."
        raise DataError(str(output), "a file ending in " + ", ".join(ENDINGS), output.suffix or "no ending", do)
    total, columns = _surveyed(file)
    model = load_registered(model_uri)
    asked = _Signature.of(model.version, columns)
    _check_columns(file, columns, asked)
    parts = output.with_name(f".{output.name}.parts")
    state = {
        "model": model.version.uri.removeprefix("models:/"),
        "file": fingerprints.file_digest(file),
        "columns": columns,
    }
    _open_parts(parts, state)
    with progress("predict", total, "rows") as advance:
        done = failed = 0
        for number, rows in enumerate(chunks(file)):
            part = parts / f"{number:06d}.parquet"
            if not part.is_file():
                _write_part(_scored(rows, columns, asked, model), part)
            done += len(rows)
            failed += sum(value is not None for value in pq.read_table(part, columns=[ERROR])[ERROR].to_pylist())
            advance(done, file.name)
    _assemble(parts, output)
    shutil.rmtree(parts, ignore_errors=True)
    return Scored(done, failed)


def _surveyed(file: Path) -> tuple[int, list[str]]:
    """Number of rows, and all their columns."""
    total, columns = 0, dict[str, None]()
    for rows in chunks(file):
        total += len(rows)
        for row in rows:
            columns |= dict.fromkeys(row.values)
    return total, list(columns)


class _Signature(NamedTuple):
    """What a model takes of these columns, and what it gives."""

    inputs: list[str]
    required: list[str]
    answers: dict[str, pa.DataType]

    @classmethod
    def of(cls, version: LoggedVersion, columns: Sequence[str]) -> _Signature:
        """By the model's signature."""
        inputs = version.inputs.items()
        kinds = {"double": pa.float64(), "float": pa.float64(), "long": pa.int64(), "integer": pa.int64()}
        outputs = {name: kinds.get(kind, pa.string()) for name, kind in version.outputs.items()}
        required = [name for name, needed in inputs if needed]
        return cls([name for name, needed in inputs if needed or name in columns], required, outputs)


def _check_columns(file: Path, columns: Sequence[str], asked: _Signature) -> None:
    if taken := set(columns) & {*asked.answers, ROW, ERROR}:
        do = "Rename them in the input: what is written comes under these names."
        raise DataError(str(file), "no columns called as the predictions", ", ".join(sorted(taken)), do)
    if not set(asked.inputs) <= set(columns):
        found = ", ".join(columns) or "none"
        raise DataError(str(file), "columns " + ", ".join(asked.required), found, "Rename the columns.")


def _open_parts(parts: Path, state: dict[str, Any]) -> None:
    """The folder of what is done already, empty when that was of another file or model."""
    try:
        if parts.is_dir() and (not (parts / STATE).is_file() or json.loads((parts / STATE).read_text()) != state):
            shutil.rmtree(parts)
        parts.mkdir(parents=True, exist_ok=True)
        (parts / STATE).write_text(json.dumps(state))
    except OSError as error:
        raise DataError(str(parts.parent), "a place to write", str(error), "Choose another path for -o.") from error
    if done := len(list(parts.glob("*.parquet"))):
        logger.info("predict    continues after %d finished parts", done)


def _scored(rows: Sequence[Row], columns: Sequence[str], asked: _Signature, model: Registered) -> pa.Table:
    """The rows with their predictions, or with the reason why there is none."""
    problems = [row.problem for row in rows]
    good = [i for i, problem in enumerate(problems) if not problem]
    given = pd.DataFrame([{name: rows[i].values.get(name) for name in asked.inputs} for i in good])
    found: list[dict[str, Any]] = [{} for _ in rows]
    for i, answer in zip(good, _answers(given, model), strict=True):
        if isinstance(answer, str):
            problems[i] = answer
        else:
            found[i] = answer
    table = {ROW: pa.array([row.number for row in rows], pa.int64())}
    table |= {name: _text_array([row.values.get(name) for row in rows]) for name in columns}
    for name, kind in asked.answers.items():
        values = [answer.get(name) for answer in found]
        table[name] = _text_array(values) if kind == pa.string() else pa.array(values, kind, from_pandas=True)
    return pa.table(table | {ERROR: _text_array([problem or None for problem in problems])})


def _text_array(values: Sequence[Any]) -> pa.Array:
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False, default=str) for v in values]
    return pa.array(texts, pa.string())


def _answers(given: pd.DataFrame, model: Registered) -> list[dict[str, Any] | str]:
    """An answer per row, or what went wrong with it: when a chunk fails, its halves are tried, down to single rows."""
    if given.empty:
        return []
    try:
        return [{str(k): v for k, v in answer.items()} for answer in model.predict(given).to_dict("records")]
    except Exception as error:
        if len(given) == 1:
            return [" ".join(f"{type(error).__name__}: {error}".split())]
        half = len(given) // 2
        halves = (given.iloc[:half].reset_index(drop=True), given.iloc[half:].reset_index(drop=True))
        return [answer for part in halves for answer in _answers(part, model)]


def _write_part(table: pa.Table, part: Path) -> None:
    beside = part.with_suffix(".partial")
    pq.write_table(table, beside)
    beside.replace(part)


def _assemble(parts: Path, output: Path) -> None:
    """All parts behind each other as one file, which appears when it is whole."""
    files = sorted(parts.glob("*.parquet"))
    schema = pq.read_schema(files[0])
    beside = output.with_name(f".{output.name}.partial")
    writers: dict[str, Callable[[Iterator[pa.Table], pa.Schema, Path], None]] = {
        ".parquet": _as_parquet,
        ".jsonl": _as_jsonl,
        ".csv": _as_csv,
        ".tsv": _as_tsv,
    }
    try:
        writers[output.suffix]((pq.read_table(file) for file in files), schema, beside)
        beside.replace(output)
    except OSError as error:
        raise DataError(str(output), "a place to write", str(error), "Choose another path for -o.") from error


def _as_parquet(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def _as_jsonl(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for table in tables:
            lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())


def _as_csv(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> None:
    _delimited(tables, schema, path, {})


def _as_tsv(tables: Iterator[pa.Table], schema: pa.Schema, path: Path) -> None:
    _delimited(tables, schema, path, {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "escapechar": "\\"})


def _delimited(tables: Iterator[pa.Table], schema: pa.Schema, path: Path, dialect: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n", **dialect)
        writer.writerow(schema.names)
        for table in tables:
            writer.writerows(row.values() for row in table.to_pylist())
