"""Translation: a text in another language.

N rows.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from apf_tasks.families._text_to_text.generation import generate
from apf_tasks.families._text_to_text.seq2seq import GenerationParams, encode_rows, load_model, loss
from apf_tasks.family import BaselineInputs, CheckedRows, Family, Prediction

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


logger = logging.getLogger("apf")

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese", "de": "German", "fr": "French", "es": "Spanish", "ja": "Japanese"}
"""Languages as an instruction calls them; others go by their code."""
ODD_FACTOR, ODD_CHARACTERS = 4, 20
"""A target this many times longer or shorter than is usual for its source, and by so many characters, is odd."""
PAIRS_AT_ONCE = 4_000_000
"""Similarities of test and train rows in memory at a time (32 MB)."""
SHOWN_LOSSES = 20
PLACEHOLDERS = {
    "printf": re.compile(r"%(?:\d+\$|\(\w+\))?[-+#0]*\d*(?:\.\d+)?(?:hh|ll|[hlz])?[sdiufgeExXcp](?![A-Za-z])|%\d+"),
    "braces": re.compile(r"\$?\{\{?[^{}\n]*\}\}?"),
    "variable": re.compile(r"%[A-Z][A-Z_]+|\$\([A-Z_]+\)"),
    "tag": re.compile(r"</?[A-Za-z][^<>\n]*>"),
    "accelerator": re.compile(r"(?:(?<!\w)[&_]|(?<=[A-Za-z])&(?=[a-z]))(?=[A-Za-z0-9])(?!\w+;)|~(?=[A-Za-z])"),
    "line break": re.compile(r"\n"),
}
"""What a program needs as it is. Of an accelerator the mark alone counts: `&File` may become `文件(&F)`."""


class TranslationParams(GenerationParams):
    """Options of the translation family."""

    slot: ClassVar[str] = "{source}"

    source_language: str = "en"
    """Code of the language that is translated: the name of its column, where there is none called `source`."""
    target_language: str = "zh"
    """Code of the language to translate into, likewise. BLEU cuts `zh` into characters, others by `13a`. A model with
    language tokens (mBART, M2M100, NLLB) has to know both codes, or begin with them: `zh` for `zh_CN`."""

    @model_validator(mode="after")
    def _two_languages(self) -> TranslationParams:
        if self.source_language == self.target_language:
            raise ValueError("source_language and target_language are the same")
        return self

    @property
    def instruction(self) -> str:
        """The prompt of a decoder where the user gives none."""
        source, target = (LANGUAGE_NAMES.get(code, code) for code in self.languages)
        return f"Translate from {source} to {target}.\n\n{self.slot}\n\n{target}:\n"

    @property
    def languages(self) -> tuple[str, str]:
        """Language of the input and of the output."""
        return self.source_language, self.target_language


PARAMS = TranslationParams


def check(rows: pd.DataFrame, params: TranslationParams) -> CheckedRows:
    """Both texts as they are, blanks around them too. A usable row has both."""
    import pandas as pd

    sources, targets = _sides(rows, params)
    checked = rows.assign(source=sources, target=targets)
    reasons = [_reason(source, target) for source, target in zip(sources, targets, strict=True)]
    good = [(s, t) for s, t, reason in zip(sources, targets, reasons, strict=True) if not reason]
    notes = {
        "targets that are equal to their source": sum(source.strip() == target.strip() for source, target in good),
        "targets of a length that is unusual for their source": _count_odd(good),
    }
    return CheckedRows(checked, pd.Series(reasons, index=rows.index, dtype=object), notes)


def _sides(rows: pd.DataFrame, params: TranslationParams) -> list[list[Any]]:
    """Source and target of each row, by whatever columns there are."""
    for names in (("source", "target"), params.languages):
        if set(names) <= set(rows.columns):
            return [list(rows[name]) for name in names]
    pairs = [value if isinstance(value, dict) else {} for value in rows["translation"]]
    return [[pair.get(code) for pair in pairs] for code in params.languages]


def _reason(source: Any, target: Any) -> str:
    """Why a pair is unusable, or ""."""
    missing = [
        name
        for name, text in (("source", source), ("target", target))
        if text is None or (isinstance(text, str) and not text.strip())
    ]
    if missing:
        return "neither source nor target" if len(missing) == 2 else f"no {missing[0]}"
    wrong = [name for name, text in (("source", source), ("target", target)) if not isinstance(text, str)]
    return f"{wrong[0]} is not a text" if wrong else ""


def _count_odd(pairs: Sequence[tuple[str, str]]) -> int:
    """Pairs whose target is far longer or shorter than the others let expect: often another sentence's."""
    import numpy as np

    if not pairs:
        return 0
    lengths = np.array([(len(source), len(target)) for source, target in pairs], dtype=np.float64)  # (N, 2)
    expected = lengths[:, 0] * np.median(lengths[:, 1] / lengths[:, 0])
    factor = np.maximum(lengths[:, 1] / expected, expected / lengths[:, 1])
    return int(((factor > ODD_FACTOR) & (abs(lengths[:, 1] - expected) > ODD_CHARACTERS)).sum())


def reference(rows: pd.DataFrame) -> list[str]:
    """The target of each row."""
    return [str(target) for target in rows["target"]]


def statistics(
    references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str], params: TranslationParams
) -> np.ndarray:
    """(N, 28): the counts that BLEU and chrF are made of."""
    from apf_tasks.evaluation.metrics.generation import translation_statistics

    return translation_statistics([[text] for text in references], predictions, params.target_language)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Corpus BLEU and chrF, 0 to 100, from sums (..., 28)."""
    from apf_tasks.evaluation.metrics.generation import translation_scores

    return translation_scores(sums)


def baselines(train: BaselineInputs, test: BaselineInputs, seed: int) -> dict[str, Sequence[Any]]:
    """What costs nothing: the source itself, and the target of the most similar train row."""
    asked, known = list(test.rows["source"]), list(train.rows["source"])
    found = nearest(asked, known)
    targets = reference(train.rows)
    return {"copied_source": asked, "nearest_train_row": [targets[i] for i in found]}


def nearest(asked: Sequence[str], known: Sequence[str]) -> list[int]:
    """For each text the most similar known one: cosine of TF-IDF over character 1- to 4-grams; of equals the first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True)
    there = vectorizer.fit_transform(known).T.tocsc()  # (V, N)
    here = vectorizer.transform(asked)
    step = max(1, PAIRS_AT_ONCE // len(known))
    found: list[int] = []
    for at in range(0, len(asked), step):
        found += (here[at : at + step] @ there).toarray().argmax(1).tolist()
    return found


def details(
    rows: pd.DataFrame,
    predictions: Sequence[Prediction],
    label_names: Sequence[str],
    out: Path,
    params: TranslationParams,
) -> dict[str, Any]:
    """How BLEU and chrF were computed, and what a program would miss in the translations."""
    from apf_tasks.evaluation.metrics.generation import signatures

    sources, found = list(rows["source"]), [str(p["prediction"]) for p in predictions]
    settings = signatures(params.target_language)
    for metric, signature in settings.items():
        logger.info("           %s: %s", metric, signature)
    return {
        "signatures": settings,
        "placeholders": lost_placeholders(sources, found, reference(rows)),
        "equal_to_source": sum(text.strip() == source.strip() for text, source in zip(found, sources, strict=True)),
        "empty": sum(not text.strip() for text in found),
        "unfinished": sum(not p["finished"] for p in predictions),
    }


def lost_placeholders(sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Kind -> how many the sources have, and how many of these are lost in predictions and in references; examples."""
    table: dict[str, dict[str, int]] = {}
    examples: list[dict[str, Any]] = []
    for source, prediction, true in zip(sources, predictions, references, strict=True):
        lost: list[str] = []
        there, also = _placeholders(prediction), _placeholders(true)
        for kind, wanted in _placeholders(source).items():
            missing, allowed = wanted - there[kind], wanted - also[kind]
            counts = table.setdefault(kind, {"in_sources": 0, "lost": 0, "lost_in_references": 0})
            counts["in_sources"] += wanted.total()
            counts["lost"] += missing.total()
            counts["lost_in_references"] += allowed.total()
            lost += missing.elements()
        if lost and len(examples) < SHOWN_LOSSES:
            examples.append({"source": source, "prediction": prediction, "lost": lost})
    return {"kinds": table, "examples": examples}


def _placeholders(text: str) -> dict[str, Counter[str]]:
    """Kind -> placeholder -> how often it stands in the text."""
    return {kind: Counter(pattern.findall(text)) for kind, pattern in PLACEHOLDERS.items()}


def family(params: TranslationParams) -> Family:
    """The translation family."""
    source, target = params.languages
    chinese = source.startswith("zh")
    return Family(
        name="translation",
        columns={"source": f"the text in {source!r}", "target": f"its translation into {target!r}"},
        alternatives=(
            {source: "the text to translate", target: "its translation"},
            {"translation": f"an object with a text under {source!r} and one under {target!r}"},
        ),
        text_columns=("source",),
        key_columns=("source", "target"),
        metrics=("bleu", "chrf"),
        check=partial(check, params=params),
        encode=partial(encode_rows, params=params, columns=("source", "target")),
        load_model=load_model,
        loss=loss,
        predict=partial(generate, params=params),
        reference=reference,
        statistics=partial(statistics, params=params),
        scores=scores,
        baselines=baselines,
        details=partial(details, params=params),
        generates=True,
        example={"source": "关闭窗口之前请保存文件。" if chinese else "Save the file before you close the window."},
        output_columns={"prediction": "string"},
    )
