"""Which of several columns is the label: the one that the text predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apf_tasks.family import Family
from apf_tasks.quickstart.columns import Column, spread, text_in
from apf_tasks.quickstart.fits import label
from apf_tasks.quickstart.matching import PART, USUAL, Guess, Match, judge

ROWS = 600
"""Rows that the prediction is tried on."""
FOLDS = 3
FEATURES = 1 << 14
NAME = 0.2
"""What a name that sounds like a label is worth, in shares of the errors that the text avoids."""
BY_NAME = USUAL - 25
"""Points of a label that its name alone decides."""


class Candidate(NamedTuple):
    """A column that may be the label."""

    guess: Guess
    avoided: float
    """Share of the errors of always saying the commonest value that a prediction by the text avoids, times the share of
    the rows that have a value; 0 where it was not tried."""


def label_by_evidence(found: Match, columns: Sequence[Column], given: Mapping[str, str]) -> tuple[Match, list[Column]]:
    """The match with the label that the text predicts best, where no name decides, and the columns that come next."""
    at = next((i for i, guess in enumerate(found.guesses) if guess.column == "label"), None)
    text = next((guess.source for guess in found.guesses if guess.column == "text"), None)
    if at is None or text is None or "label" in given:
        return found, []
    taken = [guess.source for guess in found.guesses if guess.column not in ("label", "id")]
    possible = [c for c in columns if not c.derived and not any(c is other for other in taken)]
    guesses = [guess for c in possible if (guess := _as_label(c, found.family, columns)) is not None]
    if found.guesses[at].points < BY_NAME and len(guesses) > 1:
        tried = [Candidate(guess, avoided_errors(text, guess.source)) for guess in guesses]
        tried.sort(key=lambda one: one.avoided + NAME * (one.guess.points >= PART / 2), reverse=True)
        guesses = [
            one.guess._replace(why=f"{len(one.guess.source.counts)} different values, the text predicts them best")
            for one in tried
        ]
        found = found._replace(guesses=[*found.guesses[:at], guesses[0], *found.guesses[at + 1 :]])
    chosen = found.guesses[at].source
    return found, [guess.source for guess in guesses if guess.source is not chosen]


def _as_label(column: Column, family: Family, columns: Sequence[Column]) -> Guess | None:
    fit = label(column, family, columns)
    return judge("label", column, family, columns, {}) if fit is not None and fit[0] > 0 else None


def avoided_errors(text: Column, other: Column) -> float:
    """By naive Bayes over pieces of up to three characters, on rows it has not seen."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.naive_bayes import ComplementNB

    rows = spread(list(zip(text.values, other.values, strict=True)), ROWS)
    known = [(text_in(words), value) for words, value in rows if words is not None and isinstance(value, str)]
    counts = {value: sum(v == value for _, v in known) for _, value in known}
    known = [(words, value) for words, value in known if counts[value] >= FOLDS]
    counts = {value: count for value, count in counts.items() if count >= FOLDS}
    if len(counts) < 2:
        return 0.0
    vectors = HashingVectorizer(analyzer="char", ngram_range=(1, 3), n_features=FEATURES, alternate_sign=False)
    values = [value for _, value in known]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    guessed = cross_val_predict(ComplementNB(), vectors.transform(words for words, _ in known), values, cv=folds)
    right = sum(g == v for g, v in zip(guessed, values, strict=True)) / len(values)
    majority = max(counts.values()) / len(values)
    return float(max(0.0, (right - majority) / (1 - majority)) * len(values) / max(1, len(rows)))
