"""What the stages of word vectors hand to each other."""

from __future__ import annotations

from typing import Literal

from apf_tasks.artifacts import Artifact, Recorded
from apf_tasks.params.word_vectors import VectorsParams


class Corpus(Artifact):
    """`sentences.txt`, `held_out.txt` (a line per sentence, words between spaces) and `rejected.jsonl`."""

    language: Literal["zh", "spaced"]
    rows: int
    """Different texts."""
    repeated_rows: int
    """Rows left out because an earlier one has the same text."""
    rejected_rows: int
    sentences: int
    held_out_sentences: int
    tokens: int
    """Occurrences of words, the held-out ones too."""
    distinct_words: int

    def describe(self) -> str:
        size = f"{self.rows:,} rows · {self.sentences + self.held_out_sentences:,} sentences · {self.tokens:,} words"
        left_out = f"{self.repeated_rows:,} repeated rows left out · {self.rejected_rows:,} rejected"
        return f"{size} ({self.distinct_words:,} different) · {left_out}"

    def records(self) -> Recorded:
        numbers = ("rows", "sentences", "held_out_sentences", "tokens", "distinct_words", "repeated_rows")
        metrics = {f"corpus/{name}": getattr(self, name) for name in numbers}
        return Recorded({0: metrics}, datasets={"corpus": self})


class TrainedVectors(Artifact):
    """`vectors.safetensors`, `vocabulary.json`, and `epochs.json` (scores before the first epoch and after each)."""

    run_id: str
    """The MLflow child run of the training."""
    settings: VectorsParams
    """What they were trained with."""
    vocabulary: int
    """Words with a vector."""
    tokens: int
    """Words of the text that was trained on."""
    known_tokens: int
    """Those of them that have a vector."""
    first_loss: float
    """On a sample of the training text before the first epoch: about (negative + 1) ln 2."""
    loss: float
    """On the same sample after the last."""
    held_out_loss: float | None
    held_out_accuracy: float | None
    """Share of noise words that score below the true word of a held-out context; 0.5 is chance."""
    frequency_accuracy: float | None
    """The same for the rule that the more frequent word is the true one."""
    words_per_second: float
    train_seconds: float

    def describe(self) -> str:
        held_out = f" · held-out accuracy {self.held_out_accuracy:.3f}" if self.held_out_accuracy is not None else ""
        return f"{self.vocabulary:,} words · loss {self.loss:.3f}{held_out} · {self.words_per_second:,.0f} words/s"

    def records(self) -> Recorded:
        found = {
            "train/loss": self.loss,
            "train/vocabulary": self.vocabulary,
            "train/words_per_second": self.words_per_second,
            "held_out/loss": self.held_out_loss,
            "held_out/accuracy": self.held_out_accuracy,
            "baseline/frequency/accuracy": self.frequency_accuracy,
        }
        metrics = {name: value for name, value in found.items() if value is not None}
        return Recorded({0: metrics}, {"apf.chosen_run": self.run_id})


class VectorReport(Artifact):
    """`report.json`, `nearest.csv`, `analogies.csv`, and the map as `map.png`, `map.svg` and `map.csv`."""

    vectors_fingerprint: str
    probes: int
    unknown_probes: int
    analogies: int
    unknown_analogies: int
    """Analogies with a word that has no vector."""
    analogies_first: int
    """Analogies whose right answer is the first of all words."""
    analogies_in_first_ten: int
    similarities: str | None
    """The list of word pairs judged by people."""
    similarity_pairs: int
    """Pairs of that list whose words both have a vector."""
    similarity_correlation: float | None
    """Spearman's, over those pairs."""

    def describe(self) -> str:
        parts = [f"{self.probes - self.unknown_probes} of {self.probes} probes known"]
        if self.analogies:
            parts.append(f"{self.analogies_first} of {self.analogies} analogies right")
        if self.similarity_correlation is not None:
            pairs = f"{self.similarity_pairs} pairs of {self.similarities}"
            parts.append(f"correlation with people {self.similarity_correlation:.2f} ({pairs})")
        return " · ".join(parts)

    def records(self) -> Recorded:
        metrics: dict[str, float] = {}
        if asked := self.analogies - self.unknown_analogies:
            metrics["test/analogies_first"] = self.analogies_first / asked
            metrics["test/analogies_in_first_ten"] = self.analogies_in_first_ten / asked
        if self.similarity_correlation is not None:
            metrics["test/similarity_correlation"] = self.similarity_correlation
        tables = (self.path / "nearest.csv", self.path / "analogies.csv")
        files = (*tables, *(self.path / name for name in ("report.json", "map.png", "map.svg", "map.csv")))
        return Recorded({0: metrics}, {"apf.verdict": self.describe()}, files, "words", tables)
