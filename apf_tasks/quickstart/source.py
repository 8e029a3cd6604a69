"""What a file, folder or pattern holds: the `data` section it needs, and its tables as ingestion reads them."""

from __future__ import annotations

import csv
import glob
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.errors import DataError, SourceError
from apf_tasks.params.data import SPLIT_NAMES, DataParams
from apf_tasks.quickstart.names import USUAL, language_named, number_in, plain_name
from apf_tasks.sources.data import ALL, HUB, PYPI, data_files, files_below, is_dataset
from apf_tasks.sources.formats.conll import UNIVERSAL
from apf_tasks.sources.formats.delimited import read_delimited
from apf_tasks.sources.formats.detect import format_by_name
from apf_tasks.sources.formats.labelled_text import MARK, TREE
from apf_tasks.sources.formats.parallel import sides
from apf_tasks.sources.formats.plain_text import HEADING
from apf_tasks.sources.formats.table import Table
from apf_tasks.sources.reading import SPLIT_OF, read_source
from apf_tasks.sources.text_encoding import read_text

HEAD = 1 << 18
"""Characters at the beginning of a file that its format is guessed by."""
ALIKE = 0.9
"""Share of the lines that has to look like a format."""
LONG_NAME = 50
"""Characters that no column's name has."""
MOST_TAGS = 80
MANY_FILES = 20
"""From so many text files on, each is one document."""
_ROLE = re.compile(
    r"(?<![a-z])(?:(train)(?:ing|set)?|(validation|valid|val|dev)(?:set)?|(test)(?:ing|set)?)(?![a-z])", re.IGNORECASE
)
_NO_DATA = re.compile(
    r"(?i)(readme|licen[cs]e|sources?\b|changelog).*|.*\.(md|py|sh|ya?ml|toml|cfg|ini|zip|gz|bz2|xz|tar|log|html?|pdf|"
    r"png|jpe?g|pt|bin|safetensors|ipynb|pkl|xml)"
)
_TAGGED = re.compile(r"\[?.+/\[?[A-Za-z]{1,4}\d?(\]/?[A-Za-z]+)?")


class SourceInfo(NamedTuple):
    """What was found."""

    data: DataParams
    tables: list[tuple[str, Table]]
    """(role, table); none of a source that was not looked at."""
    notes: dict[str, str]
    """Key of the `data` section -> why it stands there."""


def inspect_source(source: str, encoding: str = "auto") -> SourceInfo:
    """Look into a source. A `hub:` source stays as it is, unread. Raises SourceError or DataError."""
    if source.startswith(PYPI):
        do = "See params/sentiment.yaml for an example with `sha256`."
        raise SourceError("FILE", "a file, a folder, a pattern or hub:NAME", repr(source), do)
    if source.startswith(HUB):
        note = "not inspected: check the columns below; add `revision:` and `subset:` next to it"
        return SourceInfo(DataParams(source=source), [], {"source": note})
    try:
        settings, notes = _settings(source, DataParams(source=source, encoding=encoding))
        data = DataParams(encoding=encoding, **settings)
        return SourceInfo(data, list(read_source(data)), notes)
    except DataError as error:
        do = error.do.replace("data.encoding", "--encoding").replace(", or remove it from data.source", "")
        raise DataError(error.where, error.expected, error.found, do) from error


def _settings(source: str, bare: DataParams) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields of the data section, and why."""
    path = Path(source).expanduser()
    if sides(source, bare) or is_dataset(path):
        return {"source": source}, {}
    files = _members(path, bare) if path.is_dir() else [path] if path.exists() else data_files(bare)[ALL]
    together = {"source": "a line of each file belongs together"}
    if path.is_file() and _side(path, bare):
        for text in _aligned(_members(path.parent, bare), bare):
            if path.name in (Path(side).name for side in sides(text, bare).values()):
                return {"source": text}, together
    elif aligned := _aligned(files, bare):
        published = _published(aligned)
        if published or len(aligned) == 1:
            return {"source": published or aligned[0]}, together
    elif published := _published([str(file) for file in files if not is_no_data(file.name)]):
        parts = [Path(name) for text in published.values() for name in sorted(glob.glob(text)) or [text]]
        reading, notes = _reading(parts, bare)
        no_train = not any(_role(Path(name)) == "train" for name in map(str, files))
        note = "no file is called train: the one for validation is trained on" if no_train else "by the files' names"
        if beside := [file.name for file in files if file not in parts and format_by_name(file, bare)]:
            note += "; not read: " + ", ".join(beside[:3]) + (" and others" if len(beside) > 3 else "")
        return {"source": published} | reading, {"source": note} | notes
    if path.is_dir():
        files = _data_in(source, files, bare)
    reading, notes = _reading(files, bare)
    return {"source": source} | reading, notes


def is_no_data(name: str) -> bool:
    """Whether a file's name says that it only lies beside the data."""
    return _NO_DATA.fullmatch(name.rpartition("/")[2]) is not None


def _members(folder: Path, bare: DataParams) -> list[Path]:
    """The files in a folder; those in the folders below it where none in it is data."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    below = [] if any(not is_no_data(file.name) for file in files) else files_below(folder)
    return files if not any(format_by_name(file, bare) for file in below) else below


def _data_in(source: str, files: Sequence[Path], bare: DataParams) -> list[Path]:
    """The data files of a folder; plain text when there are no others."""
    try:
        return data_files(bare)[ALL]
    except SourceError:
        texts = [file for file in files if file.suffix in ("", ".txt") and not is_no_data(file.name)]
        if not texts:
            raise
        return texts


def _side(path: Path, bare: DataParams) -> str:
    """The part of a file's name that says its language, where the name says no format."""
    if format_by_name(path, bare) is not None:
        return ""
    return next((part for part in reversed(re.split(r"[._-]", path.name)) if language_named(part)), "")


def _aligned(files: Sequence[Path], bare: DataParams) -> list[str]:
    """`folder/train.{en,zh}` for every pair of files that differ in the language of their names."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for file in files:
        if side := _side(file, bare):
            before, _, after = file.name.rpartition(side)
            groups.setdefault((str(file.parent / before) if before else f"{file.parent}/", after), {})[side] = None
    return [f"{before}{{{','.join(names)}}}{after}" for (before, after), names in groups.items() if len(names) == 2]


def _role(path: Path) -> str | None:
    found = _ROLE.search(path.name)
    return None if found is None else SPLIT_OF[next(part for part in found.groups() if part).lower()]


def _published(sources: Sequence[str]) -> dict[str, str]:
    """Role -> source, when names say so; numbered parts as a pattern. Without train, validation takes its place."""
    by_role: dict[str, list[str]] = {}
    for text in sources:
        if role := _role(Path(text)):
            by_role.setdefault(role, []).append(text)
    if len(by_role) < 2:
        return {}
    if "train" not in by_role:
        by_role["train"] = by_role.pop("validation")
    return {role: _one_source(role, by_role[role]) for role in SPLIT_NAMES if role in by_role}


def _one_source(role: str, texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    pattern = str(Path(texts[0]).with_name(re.sub(r"\d+", "*", Path(texts[0]).name)))
    if sorted(glob.glob(pattern)) == sorted(texts):
        return pattern
    names = ", ".join(Path(text).name for text in texts[:4])
    example = re.sub(_ROLE, "*", Path(texts[0]).name, count=1)
    do = f"Say which, for example with a pattern in quotes: '{Path(texts[0]).with_name(example)}'."
    raise SourceError(f"FILE {Path(texts[0]).parent}", f"one {role} file", names, do)


def _reading(files: Sequence[Path], bare: DataParams) -> tuple[dict[str, Any], dict[str, str]]:
    """Format, header and documents where the default would not do, by the first file."""
    path = files[0]
    named = format_by_name(path, bare)
    if is_dataset(path) or named not in (None, "csv", "tsv"):
        mixed = any(format_by_name(other, bare) != named for other in files) and named in _FORMAT_NOTES
        return ({"format": named}, {"format": _FORMAT_NOTES[str(named)]}) if mixed else ({}, {})
    text = read_text(path, bare.encoding)[:HEAD]
    lines = [line.rstrip("\r") for line in text.split("\n")]
    lines = lines[:-1] if len(text) == HEAD and len(lines) > 1 else lines
    kind = _format(lines, named)
    settings: dict[str, Any] = {} if kind == named else {"format": kind}
    notes = {} if kind == named else {"format": _FORMAT_NOTES[kind]}
    if kind in ("csv", "tsv") and not has_header("\n".join(lines), kind):
        settings["header"] = False
        notes["header"] = "the first line looks like the others; columns are numbered from 0"
    if kind == "text":
        settings["documents"], notes["documents"] = _documents(lines, len(files))
    return settings, notes


_FORMAT_NOTES = {
    "jsonl": "a JSON object per line",
    "json": "one JSON array",
    "word_tag": "words as word/tag",
    "fasttext": "labels as __label__X in the lines",
    "trees": "a tree in brackets per line, its root has the label",
    "conll": "a token and its tag per line, a blank line after each sentence",
    "tsv": "tabs between the columns",
    "csv": "commas between the columns",
    "text": "plain text",
}


def _format(lines: Sequence[str], named: str | None) -> str:
    """The format that the first lines have."""
    full = [line for line in lines if line.strip()]
    if named is None and any(MARK in line.split(None, 1)[0] or f" {MARK}" in line for line in full):
        return "fasttext"
    if named is None and full and sum(TREE.fullmatch(line.strip()) is not None for line in full) >= ALIKE * len(full):
        return "trees"
    tabs = Counter(line.count("\t") for line in full).most_common(1)
    tabbed = bool(tabs) and tabs[0][0] > 0 and tabs[0][1] >= ALIKE * len(full)
    if named == "csv":
        return "tsv" if tabbed and not any("," in line for line in full[:1]) else "csv"
    if _is_conll(lines, full):
        return "conll"
    if named is not None or tabbed:
        return "tsv"
    start = full[0].strip() if full else ""
    if start.startswith(("{", "[{")) or start == "[":
        return "jsonl" if start.startswith("{") and start.endswith("}") else "json"
    pieces = [piece for line in full[:200] for piece in line.split()]
    if pieces and sum(_TAGGED.fullmatch(piece) is not None for piece in pieces) >= ALIKE * len(pieces):
        return "word_tag"
    return "csv" if _is_csv(full[:200]) else "text"


def _is_conll(lines: Sequence[str], full: Sequence[str]) -> bool:
    """Columns of a constant number, blank lines between blocks, and tags such as O and B-PER at the ends."""
    rows = [
        line.split("\t") if "\t" in line else line.split()
        for line in full
        if not line.startswith(("-DOCSTART-", "#\t", "# "))
    ]
    blank = len(lines) - len(full)
    if len(rows) < 2 or blank < len(rows) / 200:
        return False
    width, count = Counter(map(len, rows)).most_common(1)[0]
    tags = {row[-1] for row in rows if len(row) == width}
    if width == len(UNIVERSAL) and count >= ALIKE * len(rows) and rows[0][0].startswith("1"):
        return True
    tagged = "O" in tags or any(re.match(r"[BIES]-", tag) for tag in tags)
    return width >= 2 and count >= ALIKE * len(rows) and tagged and len(tags) <= MOST_TAGS


def _is_csv(full: Sequence[str]) -> bool:
    try:
        widths = Counter(map(len, csv.reader(io.StringIO("\n".join(full)), strict=True)))
    except csv.Error:
        return False
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return width >= 2 and count >= ALIKE * widths.total() and len(full) > 1


def has_header(text: str, kind: str) -> bool:
    """Whether the first record of CSV or TSV names the columns: a name is short, no number, and no value below it."""
    table = read_delimited(text, "", kind, header=False)
    columns = [table.values(i) for i in range(len(table.columns))]
    if not columns or not table.numbers:
        return True
    first = [str(column[0] or "").strip() for column in columns]
    known = {*USUAL, *(name for names in USUAL.values() for name in names), *SPLIT_NAMES}
    usual = any(plain_name(name) in known or language_named(name) for name in first)
    again = [row for row in zip(*(column[1:] for column in columns), strict=True) if list(map(str, row)) == first]
    if usual and again:  # files put behind each other, each with its header
        return True
    if any(name and name in map(str, column[1:]) for name, column in zip(first, columns, strict=True)):
        return False
    if usual:
        return True
    return not any(number_in(name) is not None or len(name) > LONG_NAME for name in first) and len(set(first)) == len(
        first
    )


def _documents(lines: Sequence[str], files: int) -> tuple[str, str]:
    if sum(HEADING.fullmatch(line) is not None for line in lines) > 1:
        return "heading", "a document begins at each line like ` = Title = `"
    if files >= MANY_FILES:
        return "file", "each file is a document"
    inside = "\n".join(lines).strip().split("\n")
    blank = sum(not line.strip() for line in inside)
    if blank * 10 >= len(inside) > 1:
        return "paragraph", "documents are separated by blank lines"
    return "line", "each line is a document"
