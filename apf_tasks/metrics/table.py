"""docs/METRICS.md, generated: `python -m apf_tasks.metrics.table > docs/METRICS.md`."""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

from apf_tasks.metrics.generation import signatures

HEAD = """# How every family is scored

Each score is a function of sums over rows, so intervals and comparisons draw the same rows for all of them.

`as` in front of a package: our own code in `apf_tasks/metrics/`, which its tests hold to be equal to that package. This
page is generated (`python -m apf_tasks.metrics.table`); a test keeps it and the versions true.

| family | metric | implementation | version | settings | scale | better |
|---|---|---|---|---|---|---|
"""

FOOT = """
Answers. English answers are compared in lower case, without punctuation and articles, as bags of words (SQuAD 2.0).
Chinese answers are compared without the punctuation that CMRC 2018 lists, by the longest common run of characters and
other words. No answer is the empty text.

ROUGE. English: Porter's stemmer. Chinese: character by character, Latin words and numbers whole. A sentence (Lsum) is a
line, or ends with a full stop, question or exclamation mark.

Signatures of a translation are those for one reference per row.
"""

SCALES = {
    **dict.fromkeys(("pearson", "spearman"), "-1 to 1"),
    **dict.fromkeys(("mae", "mse", "bits_per_byte"), "from 0"),
    **dict.fromkeys(("bleu", "chrf"), "0 to 100"),
    "perplexity": "from 1",
}
"""Score -> its scale, where that is not 0 to 1."""
LOWER_IS_BETTER = frozenset({"mae", "mse", "hamming_loss", "perplexity", "bits_per_byte"})


class Group(NamedTuple):
    """Scores of one kind of row."""

    family: str
    note: str
    implementation: str
    package: str
    """The distribution whose version is printed; "" when there is none, or one per Python version."""
    metrics: dict[str, str]
    """Score -> settings."""


def groups() -> list[Group]:
    """Every score of every family."""
    strict = 'mode="strict", scheme=IOB2'
    answers = {"f1": "best of the references", "exact_match": "best of the references"}
    where = {"has_answer": "rows with an answer", "no_answer": "rows without an answer"}
    answers |= {f"{prefix}_{score}": rows for prefix, rows in where.items() for score in ("f1", "exact_match")}
    mean = "plain mean over the labels of train, zero_division=0"
    micro = "over all decisions, zero_division=0"
    signed = {code: signatures(code) for code in ("en", "zh")}
    return [
        Group(
            *("sentiment", "one label", "as scikit-learn", "scikit-learn"),
            {"accuracy": "", "macro_f1": mean, "macro_precision": mean, "macro_recall": mean},
        ),
        Group(
            *("sentiment", "several labels", "as scikit-learn", "scikit-learn"),
            {"micro_f1": micro, "macro_f1": mean, "micro_precision": micro, "micro_recall": micro}
            | {"subset_accuracy": "the whole set is right", "hamming_loss": "share of wrong decisions"},
        ),
        Group(
            *("sentiment", "a number", "as SciPy", ""),
            {"pearson": "0 where one side is constant", "spearman": "ranks of the whole split, also when redrawn"},
        ),
        Group(*("sentiment", "a number", "as scikit-learn", "scikit-learn"), {"mae": "", "mse": ""}),
        Group(
            *("ner", "", "as seqeval", "seqeval"),
            {"f1": strict, "precision": strict, "recall": strict}
            | {"macro_f1": f"{strict}, plain mean over the types that occur"},
        ),
        Group("question_answering", "", "apf", "", answers),
        Group(
            *("summarization", "", "rouge-score", "rouge-score"),
            dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), "F-measure, mean over the rows"),
        ),
        *(
            Group(
                *("translation", f"into {name}", "sacrebleu", "sacrebleu"), {m: f"`{s}`" for m, s in signed[c].items()}
            )
            for name, c in (("Chinese", "zh"), ("other languages", "en"))
        ),
        Group(
            *("causal_lm", "", "apf", ""),
            {"perplexity": "exp(nats / tokens): for one tokenizer", "bits_per_byte": "nats / (ln 2 * UTF-8 bytes)"},
        ),
        Group("masked_lm", "", "apf", "", {"perplexity": "exp(nats / hidden tokens): for one tokenizer"}),
    ]


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
