"""Scores of generated text: ROUGE by rouge-score, BLEU and chrF by sacreBLEU, lengths and copying. N rows.

An empty prediction is scored like any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

import numpy as np

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import Counts, Scores
from apf_tasks.evaluation.metrics.classification import ratio
from apf_tasks.evaluation.metrics.rows import check_rows
from apf_tasks.words import HAN_AND_KANA

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

Language = Literal["en", "zh"]

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BLEU_ORDER = 4
"""Longest n-gram of BLEU, in tokens."""
BLEU_COLUMNS = 2 + 2 * BLEU_ORDER
"""Length of the prediction, of the reference, then matched n-grams of each order, then predicted ones."""
CHRF_ORDER = 6
"""Longest n-gram of chrF, in characters."""
CHRF_COLUMNS = 3 * CHRF_ORDER
"""For each order: n-grams of the prediction, of the reference, matched."""
CHRF_BETA = 2
"""chrF weighs recall this many times as much as precision."""
COPY_ORDERS = (1, 2, 4)

_SENTENCE_END = {
    "en": re.compile(r"([.!?][\"'”’)\]]*)\s+"),
    "zh": re.compile(r"([。！？!?…][。！？!?…”’」』）]*)\s*"),
}
_ANY_SENTENCE_END = re.compile(r"([.!?][\"'”’)\]]*)\s+|([。！？…।؟۔][。！？…”’」』）]*)\s*")
"""Of a text that is not all Latin."""
_UNSPACED_SCRIPT = re.compile(f"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff{HAN_AND_KANA}]")
"""Thai, Lao, Burmese, Khmer, kana and Han: no blanks between words."""
_BLANKLESS = frozenset(["ja", "jpn", "th", "tha", "lo", "lao", "km", "khm", "my", "mya", "bo", "bod"])
"""Codes of languages whose words `13a` cannot find."""
_CHARACTERS_AND_WORDS = re.compile(r"[a-z0-9\u00c0-\u024f]+|[^\W_]")


class CharacterTokenizer:
    """For rouge-score: Chinese characters one by one, runs of Latin letters and digits as one token.

    In lower case and without punctuation, as rouge-score's own tokenizer; full-width letters and digits count as plain.
    """

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text in order."""
        return _CHARACTERS_AND_WORDS.findall(unicodedata.normalize("NFKC", text).lower())


class StemmingTokenizer:
    """rouge-score's own tokenizer with Porter's stemmer. Each word is stemmed once: that costs more than scoring."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = cache(PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        """The stems of a text in order."""
        from rouge_score.tokenize import tokenize

        return list(tokenize(text, self))


class ScriptTokenizer:
    """For rouge-score: words of every script, in lower case; one by one the characters of scripts without blanks.

    ASCII words are as rouge-score cuts them, and stemmed where `stem` is given. Combining marks stay with their letter.
    """

    def __init__(self, stemmer: StemmingTokenizer | None) -> None:
        self.stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text in order."""
        found: list[str] = []
        going = False  # whether the last token goes on
        for character in unicodedata.normalize("NFKC", text).lower():
            kind = unicodedata.category(character)[0]
            unspaced = _UNSPACED_SCRIPT.match(character) is not None
            if kind == "M" and found and going:
                found[-1] += character
            elif kind not in "LMN":
                going = False
            elif going and not unspaced and not _UNSPACED_SCRIPT.match(found[-1]):
                found[-1] += character
            else:
                found.append(character)
                going = True
        return [t for token in found for t in (self._stemmed(token) if token.isascii() else [token])]

    def _stemmed(self, token: str) -> list[str]:
        return self.stemmer.tokenize(token) if self.stemmer else [token]


def needs_script(text: str) -> bool:
    """Whether rouge-score's own tokenizer, which keeps a to z and digits alone, would lose words of this text."""
    if text.isascii():
        return False
    letters = [c for c in text if c.isalnum() and not c.isascii()]
    return any("LATIN" not in unicodedata.name(c, "") for c in letters if c.isalpha()) or (
        bool(letters) and not re.search("[A-Za-z0-9]", text)
    )


def rouge_statistics(
    references: Sequence[str], predictions: Sequence[str], language: Language, use_stemmer: bool = True
) -> Counts:
    """(N, 5): one, then the F-measures of ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin 2004).

    English words are stemmed by Porter's rules (`-m` of ROUGE-1.5.5) unless `use_stemmer` is off; Chinese goes by
    character. With `en`, a row whose reference is not in Latin script goes by the words of its script, and by
    characters where that script has no blanks. ROUGE-Lsum compares sentence by sentence: lines, and what ends with a
    full stop, question or exclamation
    mark. No sentence model is used, so an English abbreviation ends a sentence too.
    """
    from rouge_score.rouge_scorer import RougeScorer

    check_rows(references, predictions)
    stemmer = StemmingTokenizer() if use_stemmer and language == "en" else None
    own = CharacterTokenizer() if language == "zh" else stemmer
    plain = RougeScorer(list(ROUGE), tokenizer=own)  # its own, without stemmer, when None
    scripted = RougeScorer(list(ROUGE), tokenizer=ScriptTokenizer(stemmer))
    statistics = np.ones((len(references), 1 + len(ROUGE)))
    for at, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        other = language == "en" and needs_script(reference)
        end = _ANY_SENTENCE_END if other else _SENTENCE_END[language]
        scorer = scripted if other else plain
        scores = scorer.score(*(end.sub(_with_line, text) for text in (reference, prediction)))
        statistics[at, 1:] = [scores[name].fmeasure for name in ROUGE]
    return statistics


def _with_line(end: re.Match[str]) -> str:
    """The mark that ends a sentence, and a new line in place of the blanks after it."""
    return next(mark for mark in end.groups() if mark is not None) + "\n"


def rouge_scores(sums: np.ndarray) -> Scores:
    """Mean F-measures from sums of `rouge_statistics`, (..., 5) -> (...), from 0 to 1."""
    sums = np.asarray(sums, dtype=np.float64)
    return {name: ratio(sums[..., at], sums[..., 0]) for at, name in enumerate(ROUGE, start=1)}


def translation_statistics(
    references: Sequence[Sequence[str]], predictions: Sequence[str], target_language: str
) -> Counts:
    """(N, 28): the counts of each row that BLEU (10 columns) and chrF (18) of any set of rows are made of.

    `references`: one or more per row, not the same number in all. Raises DataError for a row without one.
    """
    check_rows(references, predictions)
    if not all(references):
        found = f"none in row {next(at for at, r in enumerate(references, start=1) if not r):,}"
        raise DataError("score", "at least one reference per row", found, "Leave the row out.")
    if not predictions:
        return np.zeros((0, BLEU_COLUMNS + CHRF_COLUMNS))
    columns = list(zip_longest(*references))  # as many lists of N as there are references; None where a row has fewer
    # sacreBLEU's own statistics per row: the public interface has only their sums. Tested against it.
    rows = [m._extract_corpus_statistics(list(predictions), columns) for m in _translation_metrics(target_language)]
    return np.concatenate([np.asarray(r, dtype=np.float64) for r in rows], axis=1)


def _translation_metrics(target_language: str) -> tuple[BLEU, CHRF]:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    code = re.split("[-_]", target_language.lower())[0]
    cut = "zh" if code in ("zh", "zho", "cmn") else "char" if code in _BLANKLESS else "13a"
    bleu = BLEU(tokenize=cut, max_ngram_order=BLEU_ORDER, force=True)
    return bleu, CHRF(char_order=CHRF_ORDER, beta=CHRF_BETA)


def translation_scores(sums: np.ndarray, target_language: str = "") -> Scores:
    """Corpus bleu and chrf from sums of `translation_statistics`, (..., 28) -> (...), from 0 to 100.

    BLEU: Papineni et al. 2002, smoothed as mteval-v13a ("exp"). chrF2: Popović 2015, averaged over the orders that both
    sides have. The numbers are those of sacreBLEU (Post 2018). The language has entered with the statistics.
    """
    sums = np.asarray(sums, dtype=np.float64)
    return {"bleu": _bleu(sums[..., :BLEU_COLUMNS]), "chrf": _chrf(sums[..., BLEU_COLUMNS:])}


def _bleu(sums: Counts) -> Counts:
    length, reference_length = sums[..., 0], sums[..., 1]
    matched, predicted = np.split(sums[..., 2:], 2, axis=-1)  # each (..., 4)
    defined = (matched > 0).any(-1) & (predicted > 0).all(-1)
    # an order without a match counts as half a match, the next such order as a quarter, and so on
    smoothed = np.where(matched > 0, matched, 0.5 ** np.cumsum(matched == 0, axis=-1))
    precision = np.log(smoothed / np.maximum(predicted, 1)).mean(-1)
    penalty = np.minimum(0, 1 - ratio(reference_length, length))
    return np.asarray(np.where(defined, 100 * np.exp(penalty + precision), 0.0))


def _chrf(sums: Counts) -> Counts:
    predicted, true, matched = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]  # each (..., 6)
    both = (predicted > 0) & (true > 0)
    orders = both.sum(-1).astype(np.float64)
    matched = np.where(both, matched, 0)
    precision = ratio(ratio(matched, predicted).sum(-1), orders)
    recall = ratio(ratio(matched, true).sum(-1), orders)
    weight = CHRF_BETA**2
    return 100 * ratio((1 + weight) * precision * recall, weight * precision + recall)


def signatures(target_language: str, references_per_row: int = 1) -> dict[str, str]:
    """Score -> sacreBLEU's signature: what another must set to get the same number."""
    found = {}
    for name, metric in zip(("bleu", "chrf"), _translation_metrics(target_language), strict=True):
        metric.corpus_score(["a"], [["a"]] * references_per_row)  # a signature wants the number of references
        found[name] = str(metric.get_signature())
    return found


def length_and_copy(sources: Sequence[str], predictions: Sequence[str], language: Language) -> dict[str, float]:
    """How long predictions are, and how much of them is copied. ROUGE's tokens, without stemming.

    `mean_tokens` per prediction; `compression`: source tokens per predicted token (Grusky et al. 2018, Newsroom, over
    all rows together); `copied_1`, `copied_2`, `copied_4`: share of the predicted n-grams that stand in their source
    (one minus the novelty of See et al. 2017). 0 where nothing is predicted.
    """
    check_rows(sources, predictions)
    source_tokens = predicted_tokens = 0
    copied, predicted = dict.fromkeys(COPY_ORDERS, 0), dict.fromkeys(COPY_ORDERS, 0)
    for texts in zip(sources, predictions, strict=True):
        source, prediction = (_plain_tokens(text, language, needs_script(texts[0])) for text in texts)
        source_tokens += len(source)
        predicted_tokens += len(prediction)
        for order in COPY_ORDERS:
            known = set(_ngrams(source, order))
            ngrams = _ngrams(prediction, order)
            predicted[order] += len(ngrams)
            copied[order] += sum(ngram in known for ngram in ngrams)
    return {
        "mean_tokens": predicted_tokens / max(1, len(predictions)),
        "compression": source_tokens / predicted_tokens if predicted_tokens else 0.0,
        **{f"copied_{order}": copied[order] / max(1, predicted[order]) for order in COPY_ORDERS},
    }


def _plain_tokens(text: str, language: Language, scripted: bool) -> list[str]:
    from rouge_score.tokenize import tokenize

    if language == "zh":
        return CharacterTokenizer().tokenize(text)
    return ScriptTokenizer(None).tokenize(text) if scripted else list(tokenize(text, None))


def _ngrams(tokens: list[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[start:] for start in range(order)), strict=False))
