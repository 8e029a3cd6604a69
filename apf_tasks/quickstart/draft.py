"""What a source holds for a family: its columns, language and lengths, and which rows cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apf_tasks.data.columns import FILE_COLUMN
from apf_tasks.data.ingestion import NLI_LABEL, NO_AGREEMENT, look_alikes, numbers_written_twice
from apf_tasks.errors import DataError
from apf_tasks.family import get_family
from apf_tasks.params.family import canonical, family_params
from apf_tasks.quickstart.columns import Column, columns_of, spread
from apf_tasks.quickstart.evidence import label_by_evidence
from apf_tasks.quickstart.matching import Guess, Match, match
from apf_tasks.quickstart.names import spoken
from apf_tasks.quickstart.settings import (
    Base,
    Lengths,
    Option,
    base_for,
    held_out,
    language_of_rows,
    lengths,
    options_for,
    sides,
)
from apf_tasks.quickstart.source import SourceInfo, inspect_source
from apf_tasks.sources.data import ALL

UNKNOWN_ROWS = 10_000


@dataclass(frozen=True)
class ParamsDraft:
    """What was found out about a source."""

    source: str
    looked: SourceInfo
    found: Match
    language: str
    """Code of the language, or two as `en-zh`."""
    base: Base
    lengths: Lengths
    options: dict[str, Option]
    rows: dict[str, int]
    """Role -> rows; `all` where there are no published splits. Empty when nothing was looked at."""
    tried: int
    """Rows that went through the family's check."""
    bad: dict[str, int]
    """Why rows of these cannot be used -> how many."""
    unreadable: int
    """Rows of all that could not even be read."""
    unused: tuple[str, ...]
    """Columns of the source that nothing is made of."""
    other_labels: tuple[str, ...]
    """Columns that may be the label too, the likeliest first."""
    left_out: dict[str, int]
    """What is in the source and no row -> how many of them."""

    @property
    def language_name(self) -> str:
        """The language in words."""
        return spoken(self.language)

    @property
    def bad_share(self) -> float:
        """Share of the rows that cannot be used, as far as they were looked at."""
        return sum(self.bad.values()) / max(1, self.tried) + self.unreadable / max(1, sum(self.rows.values()))

    @property
    def problems(self) -> str:
        """What is wrong with rows, in one line."""
        found = self.bad | ({"unreadable": self.unreadable} if self.unreadable else {})
        return "; ".join(f"{reason}: {count:,}" for reason, count in found.items())

    @property
    def labels(self) -> dict[str, Any]:
        """Label -> file, where the files stand for labels; -> values, where some of them look alike."""
        column = next((g.source for g in self.found.guesses if g.source.name == FILE_COLUMN), None)
        if column is not None:
            return {Path(name).stem: name for name in column.counts}
        groups = {names[0]: names for names in self.look_alikes}
        others = {name for names in groups.values() for name in names[1:]}
        named = [] if self.learned is None else list(self.learned.source.counts)
        return {name: groups.get(name, name) for name in named if name not in others} if groups else {}

    @property
    def label_counts(self) -> Counter[str]:
        """Label -> rows, look-alikes merged."""
        counts = Counter() if self.learned is None else Counter(self.learned.source.counts)
        for first, *others in self.look_alikes:
            counts[first] += sum(counts.pop(name) for name in others)
        return counts

    @property
    def look_alikes(self) -> list[list[str]]:
        """Labels that differ only by case, white space or width."""
        learned = self.learned
        if learned is None or learned.column != self.found.family.label_column or not learned.source.few:
            return []
        return look_alikes(learned.source.counts.elements())

    @property
    def train_rows(self) -> int:
        """Rows to train on, roughly; a middling number when nothing was looked at."""
        if not self.rows:
            return UNKNOWN_ROWS
        if ALL in self.rows:
            return round(self.rows[ALL] * (1 - 2 * held_out(self.rows[ALL])))
        own = self.rows.get("train", 0)
        missing = 2 - len(self.rows.keys() & {"validation", "test"})
        return round(own * (1 - missing * held_out(own)))

    @property
    def train_examples(self) -> int:
        """The same, counting the windows of a family that reads a long row in several."""
        windows = self.found.family.needs_labels and self.rows
        return round(self.train_rows * self.lengths.windows) if windows else self.train_rows

    @property
    def learned(self) -> Guess | None:
        """The column that is to be learned."""
        column = sides(self.found)[1]
        return next((guess for guess in self.found.guesses if guess.source is column), None)


def draft(family: str, source: str, columns: Mapping[str, str] | None = None, encoding: str = "auto") -> ParamsDraft:
    """Look at a source and guess what the family needs. `columns`: the family's column -> the source's, as told.

    Raises ParamsError for an unknown family or column, SourceError and DataError for a source that cannot be read or in
    which a column is not found.
    """
    family = canonical(family)
    default = family_params(family)(name=family)
    source_info = inspect_source(source, encoding)
    given = dict(columns or {})
    if source_info.tables:
        there = columns_of(source_info.tables, source_info.data.header)
        if not any(column.sample for column in there):
            raise DataError(source, "rows", "none", "Check where it comes from.")
        found = match(family, there, given, source)
        source_info, there, found = _usable_roles(source_info, there, found, given, source)
        found, other_labels = label_by_evidence(found, there, given)
        found = _labels_as_ingested(found)
    else:
        there, found, other_labels = [], Match({}, get_family(default), []), []
    language = language_of_rows(found)
    base = base_for(found.family, language)
    options = options_for(found, language, base)
    rows: Counter[str] = Counter()
    for role, table in source_info.tables:
        rows[str(role)] += len(table.numbers)
    tried, bad = _try(found, options)
    return ParamsDraft(
        source=source,
        looked=source_info,
        found=found,
        language=language,
        base=base,
        lengths=lengths(found, base),
        options=options,
        rows=dict(rows),
        tried=tried,
        bad=dict(bad),
        unreadable=sum(len(table.rejected) for _, table in source_info.tables),
        unused=_unused(there, found),
        other_labels=tuple(column.title for column in other_labels),
        left_out=dict(Counter(one.reason for _, table in source_info.tables for one in table.left_out)),
    )


def _labels_as_ingested(found: Match) -> Match:
    """The label as ingestion reads it: the same number in one form, no `-` of annotators who did not agree."""
    at = next((i for i, guess in enumerate(found.guesses) if guess.column == found.family.label_column), None)
    if at is None or found.guesses[at].source.kind not in ("text", "number"):
        return found
    source = found.guesses[at].source
    same: dict[str, Any] = dict(numbers_written_twice(source.values))
    if source.title == NLI_LABEL:
        same[NO_AGREEMENT] = None
    if not same:
        return found
    read = replace(source, values=[same.get(str(value).strip(), value) for value in source.values])
    why = found.guesses[at].why.replace(f"{len(source.counts)} different", f"{len(read.counts)} different")
    changed = found.guesses[at]._replace(source=read, why=why)
    return found._replace(guesses=[*found.guesses[:at], changed, *found.guesses[at + 1 :]])


def _unused(there: Sequence[Column], found: Match) -> tuple[str, ...]:
    """The columns of the source that nothing is made of."""
    names = [guess.source.name for guess in found.guesses if isinstance(guess.source.name, tuple)]
    taken = [*(guess.source.title for guess in found.guesses), *(str(title) for name in names for title in name)]
    own = [c for c in there if c.sample and c.name != FILE_COLUMN and c.title not in taken and not c.derived]
    return tuple(c.title or repr("") for c in own if not any(name.startswith(f"{c.title}.") for name in taken))


def _usable_roles(
    source_info: SourceInfo, there: list[Column], found: Match, given: Mapping[str, str], source: str
) -> tuple[SourceInfo, list[Column], Match]:
    """Without validation or test files that lack a column: many a published test has no labels."""
    if isinstance(source_info.data.source, str):
        return source_info, there, found
    needed = [g.source for g in found.guesses if g.column not in (*found.family.optional, "id")]
    lacking: dict[str, str] = {}
    for role, table in source_info.tables:
        for column in needed:
            name = str(column.name).partition(".")[0]
            absent = int(name) >= len(table.columns) if isinstance(column.name, int) else name not in table.columns
            if absent and column.title not in table.columns and role != "train":
                lacking[str(role)] = f"{table.name} has no column {column.title!r}, so it is left out"
    if not lacking:
        return source_info, there, found
    roles = {role: text for role, text in source_info.data.source.items() if role not in lacking}
    notes = source_info.notes | {
        "source": "; ".join((source_info.notes.get("source", ""), *lacking.values())).lstrip("; ")
    }
    data = source_info.data.model_copy(update={"source": roles})
    source_info = SourceInfo(data, [(role, table) for role, table in source_info.tables if role not in lacking], notes)
    there = columns_of(source_info.tables, data.header)
    return source_info, there, match(found.family.name, there, given, source)


def _try(found: Match, options: Mapping[str, Option]) -> tuple[int, Counter[str]]:
    """A sample of the rows through the family's own check: how many, and what is wrong with which number of them."""
    import pandas as pd

    if not found.guesses:
        return 0, Counter()
    params = family_params(found.family.name)
    given = {name: option.value for name, option in options.items()}
    family = get_family(params.model_validate({"name": found.family.name, **given}))
    wanted = [guess for guess in found.guesses if guess.column != "id"]
    rows = list(zip(*(guess.source.values for guess in wanted), strict=True))
    if NLI_LABEL in (titles := [guess.source.title for guess in wanted]):  # those are left out, not rejected
        rows = [row for row in rows if row[titles.index(NLI_LABEL)] is not None]
    rows = spread(rows)
    table = pd.DataFrame(
        {guess.column: pd.Series([row[i] for row in rows], dtype=object) for i, guess in enumerate(wanted)}
    )
    reasons = [reason for reason in family.check(table).reasons.tolist() if reason]
    return len(rows), Counter(reasons)
