"""docs/METRICS.md, generated: `python -m apf_tasks.evaluation.metrics.table > docs/METRICS.md`."""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

from apf_tasks.evaluation.metrics.generation import signatures

HEAD = """# How every family is scored

Each score is a function of sums over rows, so intervals and comparisons draw the same rows for all of them.

`as` in front of a package: our own code in `apf_tasks/evaluation/metrics/`, which its tests hold to be equal to that
package. This page is generated (`python -m apf_tasks.evaluation.metrics.table`); a test keeps it and the versions true.

| family | metric | implementation | version | settings | scale | better |
|---|---|---|---|---|---|---|
"""

FOOT = """
Answers. English answers are compared in lower case, without punctuation and articles, as bags of words (SQuAD 2.0).
Chinese answers are compared without the punctuation that CMRC 2018 lists, by the longest common run of characters and
other words. "No answer" is the empty text. Separate scores of the rows with and without an answer are not metrics:
they are only in the test report (`by_answer` in `report.json`), when there are rows of both kinds.

ROUGE. English: Porter's stemmer. Chinese: character by character, Latin words and numbers whole. A reference
in another script, with `language: en`: the words of that script, and character by character where it has no blanks.
A sentence (Lsum) is a line, or ends with a full stop, question or exclamation mark.

Signatures of a translation are those for one reference per row; `tok:char` into Japanese, Thai, Lao, Khmer, Burmese.
"""

SCALES = {
    **dict.fromkeys(("pearson", "spearman"), "-1 to 1"),
    **dict.fromkeys(("mae", "mse", "bits_per_byte"), "from 0"),
    **dict.fromkeys(("bleu", "chrf"), "0 to 100"),
    **dict.fromkeys(("perplexity", "pseudo_perplexity"), "from 1"),
}
"""Score -> its scale, where that is not 0 to 1."""
LOWER_IS_BETTER = frozenset({"mae", "mse", "hamming_loss", "perplexity", "pseudo_perplexity", "bits_per_byte"})


class Group(NamedTuple):
    """Scores of one kind of row."""

    family: str
    note: str
    implementation: str
    package: str
    """The distribution whose version is printed; "" when there is none, or one per Python version."""
    metrics: dict[str, str]
    """Score -> settings."""


_MEAN = "plain mean over the labels of train, zero_division=0"
_MICRO = "over all decisions, zero_division=0"
_STRICT = 'mode="strict", scheme=IOB2'
_F_MEASURE = "F-measure, mean over the rows"
_ONE_TOKENIZER = "for one tokenizer"

UNSIGNED = (
    Group(
        *("sentiment", "one label", "as scikit-learn", "scikit-learn"),
        {"accuracy": "", "macro_f1": _MEAN, "macro_precision": _MEAN, "macro_recall": _MEAN},
    ),
    Group(
        *("sentiment", "several labels", "as scikit-learn", "scikit-learn"),
        {"micro_f1": _MICRO, "macro_f1": _MEAN, "micro_precision": _MICRO, "micro_recall": _MICRO}
        | {"subset_accuracy": "all labels of a row are correct", "hamming_loss": "share of wrong decisions"},
    ),
    Group(
        *("sentiment", "a number", "as SciPy", ""),
        {"pearson": "0 where one side is constant", "spearman": "ranks of the whole split, also in resamples"},
    ),
    Group(*("sentiment", "a number", "as scikit-learn", "scikit-learn"), {"mae": "", "mse": ""}),
    Group(
        *("ner", "", "as seqeval", "seqeval"),
        {"f1": _STRICT, "precision": _STRICT, "recall": _STRICT}
        | {"macro_f1": f"{_STRICT}, plain mean over the types that occur"},
    ),
    Group(
        *("question_answering", "", "apf", ""),
        {"f1": "best of the references", "exact_match": "best of the references"},
    ),
    Group(
        *("summarization", "", "rouge-score", "rouge-score"),
        {"rouge1": _F_MEASURE, "rouge2": _F_MEASURE, "rougeL": _F_MEASURE, "rougeLsum": _F_MEASURE},
    ),
    Group(
        *("causal_lm", "", "apf", ""),
        {"perplexity": f"exp(nats / tokens), {_ONE_TOKENIZER}", "bits_per_byte": "nats / (ln 2 * UTF-8 bytes)"},
    ),
    Group(
        *("masked_lm", "", "apf", ""),
        {"pseudo_perplexity": f"exp(nats / masked tokens), {_ONE_TOKENIZER}"}
        | {"masked_accuracy": "share of the masked tokens that are predicted correctly"},
    ),
)


def groups() -> list[Group]:
    """Every score of every family."""
    found = list(UNSIGNED)
    for note, code in (("into Chinese", "zh"), ("into other languages", "en")):
        signed = {metric: f"`{signature}`" for metric, signature in signatures(code).items()}
        found.append(Group("translation", note, "sacrebleu", "sacrebleu", signed))
    return found


def table() -> str:
    """The whole page."""
    lines = []
    for group in groups():
        family = f"{group.family} ({group.note})" if group.note else group.family
        number = version(group.package) if group.package else ""
        for metric, settings in group.metrics.items():
            better = "lower" if metric in LOWER_IS_BETTER else "higher"
            cells = [family, metric, group.implementation, number, settings, SCALES.get(metric, "0 to 1"), better]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(lines) + FOOT


if __name__ == "__main__":
    print(table(), end="")
