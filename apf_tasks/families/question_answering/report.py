"""What is said about answers beside their scores: which questions are answered well; and answers without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apf_tasks.evaluation.metrics.answers import Language, answer_statistics, tokens
from apf_tasks.family import Prediction

Table = dict[str, dict[str, float]]

_SENTENCE = re.compile(r"[^.!?。！？；\n]+(?:[.!?](?!\s|$)[^.!?。！？；\n]*)*[.!?。！？；]*")
"""Up to a full stop with white space behind it (2.5 and e.g. `a.out` stay whole), a Chinese one, or a line end."""

QUESTION_WORDS: Mapping[Language, Sequence[tuple[str, str]]] = {
    "en": [
        ("how many/much", r"\bhow (many|much)\b"),
        *((word, rf"\b{word}\b") for word in ("who", "when", "where", "why", "which", "how", "what")),
    ],
    "zh": [
        ("when", "时候|何时|哪一?年|哪一?天|哪一?月|几年|几月"),
        ("how many/much", "多少|几|多大|多长|多高|多久|多远"),
        ("why", "为什么|为何|因何|原因"),
        ("where", "哪里|哪儿|何处|哪个(国家|城市|地方|省)|什么地方|位于哪"),
        ("who", "谁|何人|哪位|什么人"),
        ("how", "怎么|怎样|如何"),
        ("which", "哪"),
        ("what", "什么|何|啥"),
    ],
}
"""Kind of question and how it is recognised; the first that fits counts."""
LENGTHS = ((1, "1"), (3, "2-3"), (6, "4-6"), (12, "7-12"), (25, "13-25"))
"""Most tokens of an answer, as F1 counts them, and the name of the class."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them."""
    return [found for part in _SENTENCE.findall(text) if (found := part.strip())]


def first_sentence(context: str) -> str:
    """The first sentence of the context; all of it when it has none."""
    return next(iter(sentences(context)), context.strip())


def best_overlap_sentence(question: str, context: str, language: Language) -> str:
    """The sentence with the most different words (Chinese: characters) of the question; of equal ones the first."""
    asked = set(tokens(question, language))
    return max(
        sentences(context) or [context.strip()], key=lambda sentence: len(asked & set(tokens(sentence, language)))
    )


def question_kind(question: str, language: Language) -> str:
    """What is asked for, by the question word."""
    lower = question.lower()
    return next((kind for kind, pattern in QUESTION_WORDS[language] if re.search(pattern, lower)), "other")


def answer_length(answers: Sequence[str], language: Language) -> str:
    """The class of the shortest answer's number of tokens."""
    shortest = min((len(tokens(answer, language)) for answer in answers), default=0)
    if not answers:
        return "no answer"
    return next((name for most, name in LENGTHS if shortest <= most), f"over {LENGTHS[-1][0]}")


def tables(
    questions: Sequence[str],
    references: Sequence[Sequence[str]],
    predictions: Sequence[Prediction],
    language: Language,
) -> dict[str, Any]:
    """Rows, F1 and exact match of kinds of rows; where some have no answer also how often that was said."""
    counted = answer_statistics(references, [p["prediction"] for p in predictions], language)
    kinds = [question_kind(question, language) for question in questions]
    lengths = [answer_length(answers, language) for answers in references]
    order = [name for _, name in LENGTHS] + [f"over {LENGTHS[-1][0]}", "no answer"]
    found: dict[str, Any] = {
        "by_question_word": _table(kinds, counted, sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))),
        "by_answer_length": _table(lengths, counted, [name for name in order if name in lengths]),
    }
    if all(references):
        return found
    given = np.array([bool(p["prediction"]) for p in predictions])
    there = np.array([bool(answers) for answers in references])
    named = ["has answer" if one else "no answer" for one in there]
    found["by_answer"] = _table(named, counted, ["has answer", "no answer"])
    found["threshold"] = predictions[0]["threshold"]
    found["answered"] = {
        "rightly_given": int((given & there).sum()),
        "wrongly_given": int((given & ~there).sum()),
        "rightly_left_out": int((~given & ~there).sum()),
        "wrongly_left_out": int((~given & there).sum()),
    }
    return found


def _table(names: Sequence[str], counted: np.ndarray, order: Sequence[str]) -> Table:
    which = np.array(names)
    sums = {name: counted[which == name].sum(axis=0) for name in order}
    return {
        name: {"rows": int(rows), "f1": round(f1 / max(rows, 1), 4), "exact_match": round(exact / max(rows, 1), 4)}
        for name, (rows, exact, f1) in sums.items()
    }


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Bars of F1 and exact match by kind of question and by length of the answer."""
    from matplotlib.figure import Figure

    shown = {"question": found["by_question_word"], "tokens of the shortest answer": found["by_answer_length"]}
    most = max(len(table) for table in shown.values())
    figure = Figure(figsize=(10, 1.2 + 0.45 * most), layout="constrained")
    for axes, (title, table) in zip(figure.subplots(1, 2, sharex=True), shown.items(), strict=True):
        at = np.arange(len(table))
        for shift, metric, label, colour in ((-0.2, "f1", "F1", "#2b6cb0"), (0.2, "exact_match", "exact", "#90cdf4")):
            bars = axes.barh(at + shift, [row[metric] for row in table.values()], 0.38, color=colour, label=label)
            axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
        axes.set_yticks(at, [f"{name}  ({row['rows']:,})" for name, row in table.items()])
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
