"""Exact match and F1 of answers to questions, as SQuAD (English) and CMRC 2018 (Chinese) count them. N rows.

Rules: SQuAD 2.0's evaluate-v2.0.py (Rajpurkar et al. 2018) and CMRC 2018's cmrc2018_evaluate.py, version 5 (Cui et al.
2019).
"""

from __future__ import annotations

import re
import string
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.classification import ratio
from apf_tasks.evaluation.metrics.rows import check_rows

if TYPE_CHECKING:
    from nltk.tokenize import NLTKWordTokenizer

Language = Literal["en", "zh"]

ALWAYS_ANSWER = sys.float_info.max
"""A threshold that no difference exceeds."""
NEVER_ANSWER = -sys.float_info.max
"""A threshold that every difference exceeds."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_CMRC_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""CMRC 2018 lists the ellipsis as two characters but compares one at a time, so it stays."""
_CHARACTERS_AND_RUNS = re.compile("[一-龥]|[^一-龥]+")


def normalize(text: str, language: Language) -> str:
    """What exact match compares.

    English: lower case, without ASCII punctuation and articles, single spaces. Chinese: lower case, without the
    punctuation that CMRC 2018 lists.
    """
    if language == "zh":
        return text.lower().strip().translate(_NO_CMRC_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def tokens(text: str, language: Language) -> list[str]:
    """What F1 compares: English words; Chinese characters one by one and the words of what stands between them.

    The punctuation goes first, so 2008-2010 is one word. A Chinese text's other words are NLTK's, but without NLTK's
    split into sentences (which needs a model): a full stop inside a run of several English sentences stays with its
    word.
    """
    normal = normalize(text, language)
    if language == "en":
        return normal.split()
    pieces = _CHARACTERS_AND_RUNS.findall(normal)
    return [t for p in pieces for t in ([p] if "一" <= p[0] <= "龥" else _word_tokenizer().tokenize(p))]


@cache
def _word_tokenizer() -> NLTKWordTokenizer:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def answer_statistics(references: Sequence[Sequence[str]], predictions: Sequence[str], language: Language) -> Counts:
    """(N, 3): one, exact match, F1.

    `references`: the accepted answers of each row, the best one counts; [] or [""] when the text has no answer. The
    prediction of "no answer" is "": it scores 1 where there is none, 0 elsewhere. Answers of which nothing remains
    after normalisation are no references when there are others.
    """
    check_rows(references, predictions)
    statistics = np.zeros((len(predictions), 3))
    for at, (answers, prediction) in enumerate(zip(references, predictions, strict=True)):
        kept = [a for a in answers if tokens(a, language)] or [""]
        exact = max(normalize(a, language) == normalize(prediction, language) for a in kept)
        f1 = max(_f1(tokens(a, language), tokens(prediction, language), language) for a in kept)
        statistics[at] = [1, exact, f1]
    return statistics


def _f1(answer: list[str], prediction: list[str], language: Language) -> float:
    """2 * shared / (answer + prediction) tokens. Shared: as bags in English, the longest common run in Chinese."""
    if not answer or not prediction:
        return float(answer == prediction)
    shared = _longest_common_run(answer, prediction) if language == "zh" else _in_both(answer, prediction)
    return 2 * shared / (len(answer) + len(prediction))


def _in_both(a: list[str], b: list[str]) -> int:
    return sum((Counter(a) & Counter(b)).values())


def _longest_common_run(a: list[str], b: list[str]) -> int:
    longest = 0
    lengths = [0] * (len(b) + 1)  # of the common run that ends here in a and at each place in b
    for token in a:
        lengths = [0] + [lengths[at] + 1 if token == other else 0 for at, other in enumerate(b)]
        longest = max(longest, *lengths)
    return longest


def answer_scores(sums: np.ndarray) -> Scores:
    """f1 and exact_match from sums of `answer_statistics`, (..., 3) -> (...)."""
    rows, exact, f1 = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    return {"f1": ratio(f1, rows), "exact_match": ratio(exact, rows)}


def best_threshold(
    null_differences: Sequence[float],
    references: Sequence[Sequence[str]],
    predictions: Sequence[str],
    language: Language,
) -> float:
    """The threshold with the highest F1 when every row whose difference is greater is left unanswered.

    `null_differences`: score of "no answer" minus score of the best answer; `predictions`: that best answer. As
    find_best_thresh of evaluate-v2.0.py: rows become answered in the order of their differences, and the first best
    place wins. Unlike there, rows of equal difference become answered together, as they will be. ALWAYS_ANSWER when
    every row has an answer; NEVER_ANSWER when answering never helps.
    """
    check_rows(references, null_differences)
    f1 = answer_statistics(references, predictions, language)[:, 2]
    unanswerable = np.array([not any(answers) for answers in references], dtype=bool)
    if not unanswerable.any():
        return ALWAYS_ANSWER
    differences, group = np.unique(np.asarray(null_differences, dtype=np.float64), return_inverse=True)
    gains = np.bincount(group, weights=f1 - unanswerable, minlength=len(differences)).cumsum()
    best = int(np.argmax(gains))
    return float(differences[best]) if gains[best] > 0 else NEVER_ANSWER
