"""Are the rows of today still those that a champion learned from? Labels, lengths, words, embeddings, and whether a
classifier can tell old rows from new ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apf_tasks.artifacts import DriftReport, Split
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.data.rows import read_rows
from apf_tasks.evaluation._embeddings import embed, energy_distance
from apf_tasks.family import Family, get_family
from apf_tasks.params.data import SPLIT_NAMES
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.gate import DriftParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.words import is_unspaced, sentences

BINS = 10
"""Of lengths, with about as many old rows in each."""
COMMON_WORDS = 1000
FOLDS = 5
FILE = "drift.json"


def measure_drift(
    out: Path,
    champion: str,
    then: Split,
    now: Split,
    family: FamilyParams,
    settings: DriftParams,
    runtime: RuntimeParams,
) -> DriftReport:
    """Compare the rows that are new since `then` with those of `then`, as the model `champion` sees them too.

    Rows are the same when their ids are. Raises RegistryError.
    """
    functions = get_family(family)
    old, today = _all_rows(then), _all_rows(now)
    new = today[~today["row_id"].isin(set(old["row_id"]))].reset_index(drop=True)
    report: dict[str, Any] = {"rows_then": len(old), "rows_new": len(new), "psi": {}, "p_values": {}, "auc": None}
    if len(new) >= settings.rows:
        old = _sample(old, settings)
        new = _sample(new, settings)
        report |= _compared(old, new, functions, settings.seed)
        if settings.embedded_rows:
            texts = [_texts(rows.head(settings.embedded_rows), functions) for rows in (old, new)]
            seen = embed(champion, [*texts[0], *texts[1]], runtime)
            sides = seen[: len(texts[0])], seen[len(texts[0]) :]
            report["embeddings"], report["p_values"]["embeddings"] = energy_distance(*sides, settings.seed)
    report["drifted"] = _beyond(report, settings)
    (out / FILE).write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    return DriftReport(path=out, fingerprint=fingerprint_files(out, [FILE]), **report)


def _all_rows(split: Split) -> pd.DataFrame:
    return pd.concat([read_rows(split.path / f"{name}.parquet") for name in SPLIT_NAMES], ignore_index=True)


def _sample(rows: pd.DataFrame, settings: DriftParams) -> pd.DataFrame:
    return rows.sample(min(len(rows), settings.most_rows), random_state=settings.seed).reset_index(drop=True)


def _compared(old: pd.DataFrame, new: pd.DataFrame, family: Family, seed: int) -> dict[str, Any]:
    from scipy.stats import chi2_contingency, ks_2samp

    texts = (_texts(old, family), _texts(new, family))
    lengths = [np.array([len(text) for text in side]) for side in texts]
    words = [_words(side) for side in texts]
    labels = [Counter(label for row in family.labels_of(rows) for label in row) for rows in (old, new)]
    psi = {"length": _length_psi(*lengths), "words": _word_psi(*words)}
    p_values = {"length": float(ks_2samp(*lengths).pvalue)}
    if labels[0]:
        names = sorted({*labels[0], *labels[1]})
        table = np.array([[side[name] for name in names] for side in labels], dtype=float)
        psi["labels"] = stability_index(*table)
        p_values["labels"] = float(chi2_contingency(table).pvalue) if len(names) > 1 else 1.0
    unknown = sum(count for word, count in words[1].items() if word not in words[0]) / max(1, words[1].total())
    auc, p_values["text"] = _told_apart(*texts, seed)
    return {"psi": psi, "p_values": p_values, "auc": auc, "unknown_words": unknown}


def _texts(rows: pd.DataFrame, family: Family) -> list[str]:
    columns = [rows[name].fillna("").astype(str) for name in family.text_columns if name in rows]
    return ["\n".join(values) for values in zip(*columns, strict=True)]


def _words(texts: Sequence[str]) -> Counter[str]:
    language = "zh" if is_unspaced(texts) else "spaced"
    return Counter(word for text in texts for sentence in sentences(text, language) for word in sentence)  # type: ignore[arg-type]


def _length_psi(old: np.ndarray, new: np.ndarray) -> float:
    inner = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)[1:-1]))
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    return stability_index(np.histogram(old, edges)[0], np.histogram(new, edges)[0])


def _word_psi(old: Mapping[str, int], new: Mapping[str, int]) -> float:
    """Over the most common words of before, and all others together."""
    common = [word for word, _ in Counter(old).most_common(COMMON_WORDS)]
    sides = [[side.get(word, 0) for word in common] for side in (old, new)]
    rest = [sum(side.values()) - sum(known) for side, known in zip((old, new), sides, strict=True)]
    return stability_index(*(np.array([*known, other]) for known, other in zip(sides, rest, strict=True)))


def stability_index(old: np.ndarray, new: np.ndarray) -> float:
    """Population stability index of two histograms, sum of (q - p) ln(q / p), each count with 0.5 added; 0 when alike.

    The symmetric divergence J(1, 2) of Kullback & Leibler 1951, On Information and Sufficiency.
    """
    p, q = ((np.asarray(side, dtype=float) + 0.5) / (np.sum(side) + 0.5 * len(side)) for side in (old, new))
    return float(np.sum((q - p) * np.log(q / p)))


def _told_apart(old: Sequence[str], new: Sequence[str], seed: int) -> tuple[float, float]:
    """(AUC, p) of a linear classifier over characters that tells old texts from new ones, on texts it has not seen.

    0.5 when nobody can. Lopez-Paz & Oquab 2017, Revisiting Classifier Two-Sample Tests, ICLR; p by Mann & Whitney 1947.
    """
    from scipy.stats import mannwhitneyu
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    is_new = np.array([0] * len(old) + [1] * len(new))
    features = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), max_features=50_000, sublinear_tf=True)
    model = make_pipeline(features, LogisticRegression(class_weight="balanced", max_iter=1000))
    folds = StratifiedKFold(min(FOLDS, len(old), len(new)), shuffle=True, random_state=seed)
    said = cross_val_predict(model, [*old, *new], is_new, cv=folds, method="predict_proba")[:, 1]
    test = mannwhitneyu(said[is_new == 1], said[is_new == 0], alternative="greater")
    return float(test.statistic / (len(old) * len(new))), float(test.pvalue)


def _beyond(report: Mapping[str, Any], settings: DriftParams) -> list[str]:
    """What is beyond the thresholds, in words."""
    found = [
        f"psi of {name} {value:.2f} > {settings.psi:g}" for name, value in report["psi"].items() if value > settings.psi
    ]
    if report.get("embeddings") is not None and report["embeddings"] > settings.embeddings:
        found.append(f"energy distance of embeddings {report['embeddings']:.2f} > {settings.embeddings:g}")
    if report["auc"] is not None and report["auc"] > settings.auc:
        found.append(f"new texts are separated from old ones with an AUC of {report['auc']:.2f} > {settings.auc:g}")
    return found
