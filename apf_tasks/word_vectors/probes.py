"""What word vectors know: nearest words, analogies, agreement with people, a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.errors import DataError
from apf_tasks.models.word_vectors import WordVectors, analogy, analogy_rank, nearest, read_word_vectors, similarity
from apf_tasks.params.word_vectors import ProbeParams
from apf_tasks.word_vectors.artifacts import Corpus, TrainedVectors, VectorReport
from apf_tasks.word_vectors.picture import draw_map
from apf_tasks.word_vectors.training import EPOCHS

REPORT, NEAREST, ANALOGIES = "report.json", "nearest.csv", "analogies.csv"
DEFAULT_PROBES = 12
FUNCTION_WORD_SHARE = 1e-3
"""Words with a larger share of the text are taken for function words when frequent words are chosen to look at."""
GUESSES = 3
"""Best answers of an analogy to show."""


def evaluate_vectors(out: Path, corpus: Corpus, trained: TrainedVectors, probe: ProbeParams) -> VectorReport:
    """Ask what the params say, and draw the map. Unknown words are part of the answer, not an error."""
    table = read_word_vectors(trained.path)
    frequent = frequent_words(table, max(probe.map_words, DEFAULT_PROBES), corpus.language == "zh")
    probes = probe.words or frequent[:DEFAULT_PROBES]
    near = {word: _nearest(table, word, probe.nearest) for word in probes}
    analogies = [_analogy(table, *question) for question in probe.analogies]
    agreement = _agreement(table, probe.similarities) if probe.similarities else None
    mapped = frequent[: probe.map_words]
    unit = table.unit[[table.positions[word] for word in mapped]]
    font = draw_map(out, mapped, unit, probes, probe.map_method, trained.settings.seed)
    _write_rows(out / NEAREST, _nearest_rows(near))
    _write_rows(out / ANALOGIES, _analogy_rows(analogies))
    passing = {
        "path",
        "fingerprint",
        "run_id",
        "train_seconds",
        "words_per_second",
    }  # the same vectors, the same report
    report = {
        "corpus": corpus.model_dump(mode="json", exclude={"path", "fingerprint"}),
        "training": trained.model_dump(mode="json", exclude=passing),
        "epochs": json.loads((trained.path / EPOCHS).read_text()),
        "nearest": near,
        "analogies": analogies,
        "similarities": agreement,
        "map_font": font or "none with all characters: numbers stand for words in map.png",
    }
    (out / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    ranks = [a["rank"] for a in analogies if a["rank"] is not None]
    return VectorReport(
        path=out,
        fingerprint=fingerprint_files(out, [REPORT, NEAREST, ANALOGIES]),
        vectors_fingerprint=trained.fingerprint,
        probes=len(near),
        unknown_probes=sum("unknown" in answer for answer in near.values()),
        analogies=len(analogies),
        unknown_analogies=len(analogies) - len(ranks),
        analogies_first=ranks.count(1),
        analogies_in_first_ten=sum(rank <= 10 for rank in ranks),
        similarities=probe.similarities,
        similarity_correlation=agreement["spearman"] if agreement else None,
        similarity_pairs=agreement["pairs"] if agreement else 0,
    )


def frequent_words(table: WordVectors, count: int, chinese: bool) -> list[str]:
    """The most frequent words that mean something: not too frequent, two characters or more (four in spaced text)."""
    shares = table.counts / table.counts.sum()
    long = [len(word) >= (2 if chinese else 4) for word in table.words]
    chosen = [
        word for word, share, ok in zip(table.words, shares, long, strict=True) if ok and share < FUNCTION_WORD_SHARE
    ]
    return (chosen if len(chosen) >= 3 else list(table.words))[:count]


def _nearest(table: WordVectors, word: str, count: int) -> dict[str, Any]:
    try:
        position = table.position(word)
    except DataError as error:
        return {"unknown": error.do}
    found = [{"word": n.word, "cosine": round(n.cosine, 4)} for n in nearest(table, word, count)]
    return {"count": int(table.counts[position]), "nearest": found}


def _analogy(table: WordVectors, a: str, b: str, c: str, d: str) -> dict[str, Any]:
    """The question, the rank of d, its cosine with c, and the best answers; or which word is not known."""
    asked: dict[str, Any] = {"a": a, "b": b, "c": c, "d": d, "rank": None, "of": len(table.words) - 3}
    try:
        rank = analogy_rank(table, a, b, c, d)
        answers = [n.word for n in analogy(table, a, b, c, GUESSES)]
        return asked | {"rank": rank, "answers": answers, "cosine_c_d": round(similarity(table, c, d), 4)}
    except DataError as error:
        return asked | {"unknown": f"{error.found}: {error.do}"}


def _agreement(table: WordVectors, name: str) -> dict[str, Any]:
    """Spearman's correlation of cosines and people's judgements over the pairs whose words are both known.

    WordSim-353: Finkelstein et al. 2002 ("Placing Search in Context"). SimLex-999: Hill, Reichart & Korhonen 2015.
    """
    from gensim.test.utils import datapath
    from scipy.stats import spearmanr

    file = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}[name]
    lines = Path(datapath(file)).read_text(encoding="utf-8").splitlines()
    judged = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    known = [(a, b, float(s)) for a, b, s in judged if a.lower() in table.positions and b.lower() in table.positions]
    if len(known) < 3:
        return {"name": name, "pairs": len(known), "of": len(judged), "spearman": None, "p": None}
    found = spearmanr([similarity(table, a, b) for a, b, _ in known], [score for *_, score in known])
    correlation, p = float(found.statistic), float(found.pvalue)
    return {"name": name, "pairs": len(known), "of": len(judged), "spearman": correlation, "p": p}


def _nearest_rows(near: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for word, answer in near.items():
        found = [f"{n['word']} {n['cosine']:.2f}" for n in answer.get("nearest", [])]
        rows.append({"word": word, "count": answer.get("count", 0), "nearest": ", ".join(found) or answer["unknown"]})
    return rows


def _analogy_rows(analogies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "question": f"{q['a']} : {q['b']} = {q['c']} : ?",
            "wanted": q["d"],
            "rank": q["rank"] or "unknown word",
            "answers": ", ".join(q.get("answers", [])) or q["unknown"],
        }
        for q in analogies
    ]


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["question"])
        table.writeheader()
        table.writerows(rows)
