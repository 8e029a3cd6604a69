"""Files and data sets -> tables of plain Python values, with the place of each row as a person finds it in the file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from apf_tasks.errors import DataError
from apf_tasks.params.data import SPLIT_NAMES, DataParams
from apf_tasks.sources.data import ALL, HUB, aligned_files, data_files, file_names, is_dataset, splits
from apf_tasks.sources.formats.conll import read_conll
from apf_tasks.sources.formats.delimited import read_delimited
from apf_tasks.sources.formats.detect import format_of
from apf_tasks.sources.formats.json_rows import read_json, read_jsonl
from apf_tasks.sources.formats.labelled_text import read_fasttext, read_trees
from apf_tasks.sources.formats.parallel import read_parallel
from apf_tasks.sources.formats.plain_text import read_plain_text
from apf_tasks.sources.formats.table import Table
from apf_tasks.sources.formats.word_tag import read_word_tag
from apf_tasks.sources.formats.workbook import read_workbook
from apf_tasks.sources.text_encoding import read_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

logger = logging.getLogger("apf")

SPLIT_OF = {name: name for name in SPLIT_NAMES} | {"dev": "validation", "valid": "validation", "val": "validation"}


def read_source(data: DataParams) -> Iterator[tuple[str, Table]]:
    """(role, table) for everything that `data.source` means."""
    files = data_files(data)
    names = file_names(path for paths in files.values() for path in paths)
    for role, source in splits(data).items():
        if source.startswith(HUB):
            from apf_tasks.sources.hub import load_hub_dataset

            name = source.removeprefix(HUB)
            yield from _dataset_tables(load_hub_dataset(name, data), name, role)
        elif sides := aligned_files(source, data):
            for paths in zip(*sides.values(), strict=True):
                yield role, _read_aligned(dict(zip(sides, paths, strict=True)), names[paths[0]], data)
        else:
            for path in files[role]:
                if is_dataset(path):
                    yield from _dataset_tables(_load_from_disk(path), names[path], role)
                else:
                    yield role, read_file(path, names[path], data)


def read_file(path: Path, name: str, data: DataParams) -> Table:
    """The table in one file. Raises DataError when the file as a whole cannot be read."""
    kind = format_of(path, data)
    if kind == "parquet":
        return _read_parquet(path, name)
    if kind == "xlsx":
        return read_workbook(path, name, data.header, data.sheet)
    _check_memory([path])
    if kind == "gettext":
        from apf_tasks.sources.formats.gettext import read_catalogue

        return read_catalogue(path, name, data.encoding)
    text = read_text(path, data.encoding)
    if not text.strip():
        raise DataError(str(path), "rows", "an empty file", "Check where it comes from, or remove it from data.source.")
    if kind == "jsonl" and data.format != "jsonl" and text.lstrip().startswith("["):
        kind = "json"
    readers: dict[str, Callable[[], Table]] = {
        "jsonl": lambda: read_jsonl(text, path, name),
        "json": lambda: read_json(text, path, name, kind),
        "squad": lambda: read_json(text, path, name, kind),
        "conll": lambda: read_conll(text, name),
        "word_tag": lambda: read_word_tag(text, name),
        "fasttext": lambda: read_fasttext(text, name),
        "trees": lambda: read_trees(text, name),
        "text": lambda: read_plain_text(text, path, name, data.documents or "paragraph"),
    }
    return readers.get(kind, lambda: read_delimited(text, name, kind, data.header, data.delimiter))()


def _read_aligned(paths: Mapping[str, Path], name: str, data: DataParams) -> Table:
    _check_memory(list(paths.values()))
    return read_parallel({side: read_text(path, data.encoding) for side, path in paths.items()}, name)


def _check_memory(paths: list[Path]) -> None:
    """Raises DataError when the files cannot be in memory, as bytes and as text: better than to be killed."""
    needed, free = 2 * sum(path.stat().st_size for path in paths), psutil.virtual_memory().available
    if needed > free:
        found = f"{needed / 2**30:.1f} GiB to read it with {free / 2**30:.1f} GiB free"
        raise DataError(str(paths[0]), "a file that fits in memory", found, "Use a part of it, or free some memory.")


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Within the block, what is wrong with a Parquet file is a DataError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(str(path), "a Parquet file that can be read", found, "Write it again.") from error


def _read_parquet(path: Path, name: str) -> Table:
    import pyarrow.parquet as pq

    def values(i: int) -> list[Any]:
        with reading_parquet(path):
            found = pq.ParquetFile(path).read(columns=[columns[i]]).column(0).to_pylist()
        return [_named(value, features[columns[i]]) for value in found] if columns[i] in features else list(found)

    with reading_parquet(path):
        file = pq.ParquetFile(path)
        features = _features(file.schema_arrow)
    columns = tuple(file.schema_arrow.names)
    return Table(name, columns, list(range(1, file.metadata.num_rows + 1)), [], values)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """The features that `datasets` wrote into a file: they have the names of labels that are stored as numbers."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    from datasets import Features

    return dict(Features.from_arrow_schema(schema))


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
        return [_named(value, dataset.features[columns[i]]) for value in found]

    return Table(name, columns, list(range(1, len(dataset) + 1)), [], values)


def _named(value: Any, feature: Any) -> Any:
    """The value with names in place of the numbers of a ClassLabel, at whatever depth."""
    if isinstance(value, list):
        inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return [_named(v, inner) for v in value]
    if isinstance(value, dict):
        return {key: _named(v, feature.get(key) if isinstance(feature, dict) else None) for key, v in value.items()}
    names = getattr(feature, "names", None)
    return value if names is None else None if value is None or value < 0 else names[value]
