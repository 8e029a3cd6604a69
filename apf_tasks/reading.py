"""Files and data sets -> tables of plain Python values, with the place of each row as a person finds it in the file."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.errors import DataError
from apf_tasks.params import SPLIT_NAMES, DataParams
from apf_tasks.sources import ALL, HUB, data_files, file_names, is_dataset, roles
from apf_tasks.text_encoding import read_text

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger("apf")

FORMATS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SPLIT_OF = {name: name for name in SPLIT_NAMES} | {"dev": "validation", "valid": "validation", "val": "validation"}
MAX_FIELD_CHARACTERS = 1 << 30
"""The csv module's own limit of 131,072 would reject a chapter of a book."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used."""

    file: str
    row: int
    reason: str


@dataclass(frozen=True)
class Table:
    """The rows of one file. Missing values are None."""

    name: str
    columns: tuple[str, ...]
    numbers: list[int]
    """Of each row: its line in a text file, else its number from 1."""
    rejected: list[Rejected]
    values: Callable[[int], list[Any]]
    """Number of a column -> its values; read when asked for, as a wide file may have many that nobody wants."""


def read_source(data: DataParams) -> Iterator[tuple[str, Table]]:
    """(role, table) for everything that `data.source` means."""
    files = data_files(data)
    names = file_names(path for paths in files.values() for path in paths)
    for role, source in roles(data).items():
        if source.startswith(HUB):
            from apf_tasks.hub import load_hub_dataset

            name = source.removeprefix(HUB)
            yield from _dataset_tables(load_hub_dataset(name, data), name, role)
        for path in files[role]:
            if is_dataset(path):
                yield from _dataset_tables(_load_from_disk(path), names[path], role)
            else:
                yield role, read_file(path, names[path], data)


def read_file(path: Path, name: str, data: DataParams) -> Table:
    """The table in one CSV, TSV, JSONL or Parquet file."""
    kind = _format(path, data)
    if kind == "parquet":
        return _read_parquet(path, name)
    text = read_text(path, data.encoding)
    if not text.strip():
        raise DataError(str(path), "rows", "an empty file", "Check where it comes from, or take it out of data.source.")
    if kind == "jsonl":
        return _read_jsonl(text, path, name)
    return _read_delimited(text, name, kind, data.header)


def _format(path: Path, data: DataParams) -> str:
    if data.format not in ("auto", "dataset"):
        return data.format
    if known := FORMATS.get(path.suffix.lower()):
        return known
    with path.open("rb") as file:
        if b"\t" in file.readline(1 << 16):
            return "tsv"
    do = "Write data.format: csv, tsv, jsonl or parquet. If it is an archive, enter it with `!/`."
    raise DataError(str(path), "a name ending in " + ", ".join(FORMATS), repr(path.suffix), do)


def _read_delimited(text: str, name: str, kind: str, header: bool) -> Table:
    """CSV by RFC 4180. In TSV a quotation mark is a character like any other: texts are full of lone ones."""
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {"strict": True}
    # csv has to see line ends as they are; str.splitlines would also cut at U+2028 inside a text
    parsed = [p for p in _records(list(io.StringIO(text, newline="")), dialect) if p[1]]
    rejected = [Rejected(name, number, found) for number, found in parsed if isinstance(found, str)]
    records = [(number, found) for number, found in parsed if not isinstance(found, str)]
    if header and records:
        columns = tuple(column.strip() for column in records.pop(0)[1])
    else:
        width = Counter(len(fields) for _, fields in records).most_common(1)
        columns = tuple(str(i) for i in range(width[0][0] if width else 0))
    whole = [(number, fields) for number, fields in records if len(fields) == len(columns)]
    rejected += [
        Rejected(name, number, f"{len(fields)} fields instead of {len(columns)}")
        for number, fields in records
        if len(fields) != len(columns)
    ]
    numbers = [number for number, _ in whole]
    # texts that read "NA" or "null" are texts; only nothing at all is missing
    return Table(name, columns, numbers, rejected, lambda i: [fields[i] or None for _, fields in whole])


def _records(lines: list[str], dialect: dict[str, Any]) -> Iterator[tuple[int, list[str] | str]]:
    """(line, fields) of each record, or (line, what is wrong with it).

    After a quoting mistake, parsing starts again on the next line: an open quote must not swallow the rows after it.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    start = 0
    while start < len(lines):
        reader = csv.reader(itertools.islice(lines, start, None), **dialect)
        before = start
        try:
            for fields in reader:
                yield before + 1, fields
                before = start + reader.line_num
            return
        except csv.Error as error:
            yield before + 1, f"quoting: {error}"
            start = before + 1


def _read_jsonl(text: str, path: Path, name: str) -> Table:
    if text.lstrip().startswith("["):
        do = "Write one object per line, for example with `jq -c '.[]'`."
        raise DataError(str(path), "one JSON object per line", "one JSON array", do)
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        value = _json_object(line)
        if isinstance(value, str):
            rejected.append(Rejected(name, number, value))
        else:
            records.append(value)
            numbers.append(number)
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    return Table(name, columns, numbers, rejected, lambda i: [record.get(columns[i]) for record in records])


def _json_object(line: str) -> dict[str, Any] | str:
    """The object, or what is wrong with the line."""
    try:
        value = json.loads(line)
        if "\\ud" in line.lower():
            line_as_read = json.dumps(value, ensure_ascii=False)
            line_as_read.encode("utf-8")
    except UnicodeEncodeError:
        return "half of a surrogate pair: no valid Unicode text"
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    return value if isinstance(value, dict) else "not a JSON object"


def _read_parquet(path: Path, name: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def damaged(error: Exception) -> DataError:
        return DataError(str(path), "a Parquet file that can be read", str(error).splitlines()[0], "Write it again.")

    def values(i: int) -> list[Any]:
        try:
            return list(pq.ParquetFile(path).read(columns=[columns[i]]).column(0).to_pylist())
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(error) from error

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise damaged(error) from error
    columns = tuple(file.schema_arrow.names)
    return Table(name, columns, list(range(1, file.metadata.num_rows + 1)), [], values)


def _load_from_disk(path: Path) -> Dataset | DatasetDict:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        found = " ".join(str(error).split()) or type(error).__name__
        raise DataError(str(path), "a folder that save_to_disk wrote", found, "Save it again.") from error


def _dataset_tables(loaded: Dataset | DatasetDict, name: str, role: str) -> Iterator[tuple[str, Table]]:
    """The data set's own splits; of a data set that stands for one role, the split of that role."""
    if not isinstance(loaded, dict):
        yield role, _dataset_table(loaded, name)
        return
    if len(loaded) == 1 and (role != ALL or next(iter(loaded)) not in SPLIT_OF):
        chosen = {role: next(iter(loaded))}
    else:
        chosen = {SPLIT_OF[split]: split for split in loaded if split in SPLIT_OF and role in (ALL, SPLIT_OF[split])}
    if not chosen:
        expected = "a split called " + (" or ".join(SPLIT_NAMES) if role == ALL else role)
        raise DataError(f"data set {name}", expected, ", ".join(loaded) or "none", "Save it with one of these names.")
    if role == ALL and (unused := sorted(set(loaded) - set(chosen.values()))):
        logger.warning("data set %s: not used: %s", name, ", ".join(unused))
    for own, split in chosen.items():
        yield own, _dataset_table(loaded[split], f"{name}/{split}")


def _dataset_table(dataset: Dataset, name: str) -> Table:
    columns = tuple(dataset.column_names)

    def values(i: int) -> list[Any]:
        found = dataset.with_format(None).select_columns([columns[i]])[:][columns[i]]
        names = getattr(dataset.features[columns[i]], "names", None)  # a ClassLabel: numbers that stand for names
        if names is None:
            return list(found)
        return [None if value is None or value < 0 else names[value] for value in found]

    return Table(name, columns, list(range(1, len(dataset) + 1)), [], values)
