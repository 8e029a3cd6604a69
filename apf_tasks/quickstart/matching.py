"""Which column of a source is which of a family: by its name, by a usual name, by what it holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from apf_tasks.data.columns import FILE_COLUMN
from apf_tasks.data.ingestion import EXTRA
from apf_tasks.errors import DataError, ParamsError
from apf_tasks.family import Family, get_family
from apf_tasks.params.family import FamilyParams, family_params
from apf_tasks.params.file import nearest
from apf_tasks.quickstart.columns import Column
from apf_tasks.quickstart.fits import FITS, prose
from apf_tasks.quickstart.names import language_named, plain_name, spoken, usual_names

TOLD, SAME, USUAL, PART = 200.0, 100.0, 70.0, 40.0
"""Points for a column that the user names, for the very name, for a usual one, for a name with a usual word in it."""
OPTIONAL_WEIGHT = 0.3
SHOWN_COLUMNS = 12
ANY_RANGE = {"score_range": (0.0, 1.0)}
"""Some range, to see which columns the family asks for; the real one comes from the values."""


class Guess(NamedTuple):
    """One column of the family, found."""

    column: str
    source: Column
    why: str
    points: float


class Match(NamedTuple):
    """The family in the variant that fits, and its columns."""

    options: dict[str, Any]
    family: Family
    guesses: list[Guess]


def match(name: str, columns: Sequence[Column], given: Mapping[str, str], where: str) -> Match:
    """The variant of the family and the set of its columns that explains most of the source.

    Raises DataError when a column is missing, ParamsError when `told` names one that the family does not have.
    """
    _refuse_preferences(name, columns, given, where)
    variants = list(_variants(name, columns, given))
    fixed = _told(variants, columns, given, where)
    best: tuple[float, Match] | None = None
    missing: tuple[float, list[Guess], list[tuple[str, str]]] | None = None
    for options, family in variants:
        for wanted in (family.columns, *family.alternatives):
            if not set(given) <= {*wanted, *family.optional, *EXTRA}:
                continue
            guesses = _assign(wanted, family, columns, fixed, options)
            points = sum(guess.points for guess in guesses)
            if lacking := [(c, what) for c, what in wanted.items() if c not in {g.column for g in guesses}]:
                if missing is None or points / len(wanted) > missing[0]:
                    missing = points / len(wanted), guesses, lacking
                continue
            extra = _optional(family, columns, guesses, fixed, options)
            points += OPTIONAL_WEIGHT * sum(guess.points for guess in extra)
            if best is None or points > best[0]:
                best = points, Match(options, family, guesses + extra)
    if best is not None:
        return best[1]
    raise _not_found(missing, variants[0][1], columns, where)


def _refuse_preferences(name: str, columns: Sequence[Column], given: Mapping[str, str], where: str) -> None:
    """Raises DataError for answers of which some are not wanted: a language model would learn those too."""
    titles = {plain_name(column.title) for column in columns}
    pairs = {"chosen", "rejected"} <= titles
    judged = [c for c in columns if plain_name(c.title) == "label" and {*c.counts} <= {"true", "false"} and c.sample]
    if name != "causal_lm" or given or not (pairs or judged):
        return
    found = (
        "preferences: chosen and rejected answers (DPO)" if pairs else "preferences: answers judged true or false (KTO)"
    )
    do = "Training on preferences is not part of apf. " + (
        "To learn the chosen answers alone: --column prompt=… --column response=chosen."
        if pairs
        else "To learn the good answers alone, keep the rows whose label is true, and say --column messages=…."
    )
    raise DataError(where, "answers that are all to be learned", found, do)


def _variants(
    name: str, columns: Sequence[Column], given: Mapping[str, str]
) -> Iterator[tuple[dict[str, Any], Family]]:
    """(options, family) for all options that change which columns the family asks for."""
    params = family_params(name)
    own = {field: info for field, info in params.model_fields.items() if field not in FamilyParams.model_fields}
    choices: list[list[dict[str, Any]]] = []
    for field, info in own.items():
        values = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        values = (False, True) if info.annotation is bool else values
        if values:
            choices.append([{}, *({field: value} for value in values if value != info.default)])
    if {"source_language", "target_language"} <= own.keys() and (pair := _languages(columns, given)):
        choices.append([dict(zip(("source_language", "target_language"), pair, strict=True))])
    seen: list[Any] = []
    for chosen in itertools.product(*choices):
        options = {key: value for part in chosen for key, value in part.items()}
        family = _family(params, name, options)
        asked = family and (family.columns, family.alternatives, family.optional)
        if family is not None and asked not in seen:
            seen.append(asked)
            yield options, family


def _family(params: type[FamilyParams], name: str, options: dict[str, Any]) -> Family | None:
    for given in (options, options | ANY_RANGE):
        if given.keys() <= params.model_fields.keys():
            try:
                return get_family(params.model_validate({"name": name, **given}))
            except ValidationError:
                continue
    return None


def _languages(columns: Sequence[Column], given: Mapping[str, str]) -> tuple[str, str] | None:
    """Codes of source and target: of the columns that are told or named so, by the names of columns after languages,
    else of the first two texts in different languages."""
    by_title = {column.title: column for column in columns}
    asked = [by_title.get(given.get(side, "")) for side in ("source", "target")]
    chosen = [column for column in asked if column is not None]
    if len(chosen) < 2:
        chosen = [column for column in columns if language_named(column.title.rpartition(".")[2])]
    if len(chosen) < 2:
        by_name = {plain_name(column.title): column for column in columns if column.is_prose}
        named = (
            next((by_name[n] for n in (s, *usual_names(s, {})) if n in by_name), None) for s in ("source", "target")
        )
        chosen = [column for column in named if column is not None]
    if len(chosen) < 2:
        chosen = [column for column in columns if column.is_prose and not column.is_phrase]
    codes = [language_named(column.title.rpartition(".")[2]) or column.language for column in chosen]
    different = list(dict.fromkeys(codes))
    return (different[0], different[1]) if len(different) > 1 else None


def _told(
    variants: Sequence[tuple[dict[str, Any], Family]], columns: Sequence[Column], given: Mapping[str, str], where: str
) -> dict[str, Column]:
    """The columns that the user names."""
    families = [family for _, family in variants]
    sets = [names for f in families for names in (f.columns, *f.alternatives, f.optional)]
    known = list(dict.fromkeys((*(n for names in sets for n in names), *EXTRA)))
    found: dict[str, Column] = {}
    for name, wanted in given.items():
        if name not in known:
            near = nearest(name, known)
            do = f"Did you mean {near}?" if near else "Choose one of them."
            raise ParamsError("--column", "one of " + ", ".join(known), repr(name), do)
        by_title = {column.title: column for column in columns} | {str(column.name): column for column in columns}
        if wanted.isdecimal() and wanted not in by_title and int(wanted) < len(columns):
            by_title[wanted] = columns[int(wanted)]
        if wanted not in by_title:
            do = f"Choose one of them: --column {name}=NAME, or its number from 0."
            raise DataError(where, f"a column {wanted!r}", "the columns\n" + listed(columns), do)
        found[name] = by_title[wanted]
    if given and not any(set(given) <= {*names, *f.optional, *EXTRA} for f in families for names in sets):
        together = " or ".join("{" + ", ".join(names) + "}" for names in sets if names)
        raise ParamsError("--column", f"columns that belong together: {together}", ", ".join(given), "Leave some out.")
    return found


def _assign(
    wanted: Mapping[str, str], family: Family, columns: Sequence[Column], fixed: Mapping[str, Column], options: Any
) -> list[Guess]:
    """The best column for each wanted one, every column once; fewer when some cannot be found."""
    guesses = [Guess(c, fixed[c], "as you say", TOLD) for c in wanted if c in fixed]
    candidates = [
        (-found.points, i, found)
        for i, column in enumerate(wanted)
        if column not in fixed
        for source in columns
        if not any(source is other for other in fixed.values())
        and (found := judge(column, source, family, columns, options))
    ]
    for _, _, found in sorted(candidates, key=lambda candidate: candidate[:2]):
        taken = [guess.source for guess in guesses]
        if found.column not in {guess.column for guess in guesses} and not any(_same(found.source, t) for t in taken):
            guesses.append(found)
    return sorted(guesses, key=lambda guess: list(wanted).index(guess.column))


def _same(one: Column, other: Column) -> bool:
    """Whether two are one column, or one is inside the other."""
    return one is other or other.title.startswith(f"{one.title}.") or one.title.startswith(f"{other.title}.")


def _optional(
    family: Family, columns: Sequence[Column], guesses: Sequence[Guess], fixed: Mapping[str, Column], options: Any
) -> list[Guess]:
    """Columns that are taken along: by their names alone. Also `id`, where every row has its own."""
    taken = [guess.source for guess in guesses]
    free = [column for column in columns if not any(column is other for other in taken)]
    found = [Guess(c, fixed[c], "as you say", TOLD) for c in (*family.optional, *EXTRA) if c in fixed]
    for name in (*family.optional, "id"):
        if name in fixed:
            continue
        scored = [judge(name, column, family, columns, options) for column in free if column.name != FILE_COLUMN]
        named = [guess for guess in scored if guess and guess.points >= USUAL / 2]
        if named:
            found.append(max(named, key=lambda guess: guess.points))
    return found


def judge(column: str, source: Column, family: Family, columns: Sequence[Column], options: Any) -> Guess | None:
    """How well a column of the source is the family's; None when it is not."""
    if column == "id":
        fit = _own_in_every_row(source)
    elif source.name == FILE_COLUMN and column != family.label_column:
        return None
    elif column in FITS or column not in (*family.optional, *EXTRA):
        fit = FITS.get(column, prose)(source, family, columns)
    else:
        fit = (0, "")
    if fit is None:
        return None
    points, why = fit
    language = options.get(f"{column}_language")
    if language and points > 0:  # of a translation
        points = 12 - list(columns).index(source) / len(columns) if source.language == language else 0
        why = f"text in {spoken(language)}"
    plain, usual = plain_name(source.title), usual_names(column, options)
    inner = plain_name(source.title.rpartition(".")[2])
    if plain == plain_name(column):
        return Guess(column, source, "has this name", SAME + points)
    if points < 0:
        return None
    if plain in usual or inner in (column, *usual):
        rank = min((*usual, column).index(plain if plain in usual else inner), 25)
        return Guess(column, source, f"a usual name for it; {why}" if why else "a usual name", USUAL - rank + points)
    parts = [at for at, name in enumerate((column, *usual)) if _contains(plain, name)]
    if parts and column != "id":
        return Guess(column, source, f"its name; {why}" if why else "its name", PART - min(parts[0], 25) + points)
    own = column in family.columns  # without a name, one is as good as another: the family's own
    return Guess(column, source, why, points if own else points / 2) if points > 0 else None


def _own_in_every_row(source: Column) -> tuple[float, str] | None:
    scalars = source.kind in ("text", "number") and source.name != FILE_COLUMN
    return (0, "a different one in every row") if scalars and len(source.counts) == len(source.values) else None


def _contains(plain: str, usual: str) -> bool:
    return usual in plain.split("_") if usual.isascii() else usual in plain


def _not_found(missing: Any, family: Family, columns: Sequence[Column], where: str) -> DataError:
    _, guesses, lacking = missing
    column, _ = lacking[0]
    expected = "a column for " + " and one for ".join(f"{name!r} ({meaning})" for name, meaning in lacking)
    several = (family.columns, *family.alternatives) if family.alternatives else ()
    sets = f"  (taken are {'; or '.join(', '.join(names) for names in several)})\n" if several else ""
    so_far = "".join(f"  taken as {g.column!r}: {g.source.title}\n" for g in guesses)
    do = f"Choose one: --column {column}=NAME (or its number, from 0)."
    if len(columns) == 1 and ";" in columns[0].title:
        do = "Save it with commas or tabs between the columns."
    return DataError(where, expected, f"no suitable one among\n{listed(columns)}{so_far}{sets}", do)


def listed(columns: Sequence[Column]) -> str:
    """A line for each column: its name and examples."""
    lines = [f"  {c.title or repr('')}: {' | '.join(c.examples(2, 50)) or '(empty)'}\n" for c in columns]
    more = f"  and {len(lines) - SHOWN_COLUMNS} more\n" if len(lines) > SHOWN_COLUMNS else ""
    return "".join(lines[:SHOWN_COLUMNS]) + more
