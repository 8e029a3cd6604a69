"""Which format a file has, by its name and by what the params say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from apf_tasks.errors import DataError
from apf_tasks.params.data import DataParams
from apf_tasks.sources.compression import opened

COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
"""Endings after which a file holds one other file; the ending before it says the format."""
DESCRIBING = re.compile(r"(dataset_infos?|dataset_dict|state|package(-lock)?|croissant|schema|(.*_)?config)\.json")
"""Names of JSON files that describe the data beside them."""
FORMATS = {
    **{".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"},
    **{".xlsx": "xlsx", ".xlsm": "xlsx"},
    **{".json": "json", ".po": "gettext", ".mo": "gettext", ".conllu": "conll"},
    **dict.fromkeys((".conll", ".bio", ".iob", ".iob2", ".bioes", ".iobes"), "conll"),
}
AUTO = ("auto", "dataset")
"""Formats that say nothing about single files."""


def format_by_name(path: Path, data: DataParams) -> str | None:
    """The format that a file's name stands for; `sentences.conll.txt` counts by the ending before `.txt`."""
    if DESCRIBING.fullmatch(path.name):
        return None
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".txt":
        named = FORMATS.get(suffixes[0]) if len(suffixes) == 2 else None
        return named or ("text" if data.format == "text" or data.documents is not None else None)
    return FORMATS.get(suffixes[-1]) if suffixes else None


def format_of(path: Path, data: DataParams) -> str:
    """The format to read a file in. Raises DataError where nothing tells."""
    if data.format not in AUTO:
        return data.format
    if known := format_by_name(path, data):
        return known
    with opened(path) as file:
        if b"\t" in file.readline(1 << 16):
            return "tsv"
    do = "Write data.format, for example csv, tsv, jsonl, conll or text. To read a file inside an archive, use `!/`."
    raise DataError(str(path), "a name ending in " + ", ".join(FORMATS), repr(path.suffix), do)


def files_of_format(files: Sequence[Path], data: DataParams) -> list[Path]:
    """The files of a folder that are data, by their names."""
    named = {file: format_by_name(file, data) for file in files}
    if data.format in AUTO:
        found = [file for file in files if named[file]]
        # beside other files, .json describes them
        found = [file for file in found if named[file] != "json"] or found
    else:
        wanted = "json" if data.format == "squad" else data.format
        found = [file for file in files if named[file] == wanted]
        if not found and wanted != "gettext":
            found = [file for file in files if file.suffix.lower() in (*FORMATS, ".txt")]
    # of a catalogue and what was compiled from it, one
    return [file for file in found if file.suffix != ".mo" or file.with_suffix(".po") not in found]
