"""What stages hand to each other: small frozen handles, JSON on disk, never tensors or tables.

`path` says where the files are and never enters a key; `fingerprint` says what they contain, and is all that
downstream keys depend on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

from pydantic import Field, model_validator

from apf_tasks.params.base import Frozen
from apf_tasks.params.data import SplitName
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import TrainParams

Score = float
Interval = tuple[float, float]


class Rows(Protocol):
    """A handle of rows, such as a tokenized split."""

    @property
    def fingerprint(self) -> str:
        """Digest of the content."""

    @property
    def rows(self) -> int:
        """How many."""

    @property
    def tokens(self) -> int:
        """How many of these."""


class Recorded(NamedTuple):
    """What a result adds to the MLflow run of its pipeline."""

    metrics: Mapping[int, Mapping[str, float]] = {}  # never changed
    """MLflow step -> name -> value."""
    tags: Mapping[str, str] = {}
    files: tuple[Path, ...] = ()
    """Of these, MLflow gets the ones that exist."""
    folder: str = ""
    """Folder of the run in which the files go."""
    tables: tuple[Path, ...] = ()
    """CSV files among them that MLflow shows, and compares between runs."""
    datasets: Mapping[str, Rows] = {}
    """Name -> the rows that become a data set of the run."""


class Artifact(Frozen):
    """The result of a stage: a folder and the fingerprint of its content."""

    path: Path
    """The artifact's folder."""
    fingerprint: str
    """blake2b of the content, hexadecimal."""

    def describe(self) -> str:
        """One line for a person."""
        return ""

    def records(self) -> Recorded:
        """Metrics, tags and files for the MLflow run of the pipeline."""
        return Recorded()


class RawData(Artifact):
    """Normalised rows: `rows.parquet`, and `rejected.jsonl` with file, row number and reason."""

    source: str
    rows: dict[str, int]
    """Rows per published split; `all` when the source has none."""
    columns: tuple[str, ...]
    rejected_rows: int
    left_out_rows: int
    """Rows whose number lies in no label range, or beyond `max_rows`."""
    notes: dict[str, int] = Field(default_factory=dict)
    """What was repaired in the rows, and how often."""

    def describe(self) -> str:
        parts = [f"{n:,} rows" if s == "all" else f"{s} {n:,}" for s, n in self.rows.items()]
        left_out = [f"{self.left_out_rows:,} left out"] if self.left_out_rows else []
        notes = [f"{count:,} {what}" for what, count in self.notes.items()]
        return " · ".join([*parts, *left_out, f"{self.rejected_rows:,} rejected", *notes])


class Split(Artifact):
    """`train.parquet`, `validation.parquet`, `test.parquet`, and the leak report `leaks.json`."""

    rows: dict[SplitName, int]
    dropped_duplicates: int
    dropped_conflicts: int
    """Rows left out because the same text carries different labels."""
    near_duplicate_groups: int
    dropped_near_duplicates: int
    label_names: tuple[str, ...]
    """Sorted, from the train split. Empty where the family has no labels."""
    method: str
    seed: int

    def describe(self) -> str:
        parts = [f"{name} {count:,}" for name, count in self.rows.items()]
        dropped = self.dropped_duplicates + self.dropped_conflicts
        return (
            " · ".join(parts) + f" · left out: {dropped:,} duplicates, {self.dropped_near_duplicates:,} near-duplicates"
        )

    def records(self) -> Recorded:
        return Recorded(files=(self.path / "leaks.json",), folder="split")


class TokenizedSplit(Artifact):
    """`tokens.arrow` (input_ids, labels, …) and `rows.parquet` (the rows themselves), in the same order."""

    name: SplitName
    tokenizer: str
    """Base and revision of the tokenizer."""
    rows: int
    examples: int
    """A long row gives several: windows of its tokens."""
    tokens: int
    supervised_tokens: int
    """Targets that count in the loss: labels that are not IGNORE_INDEX."""
    truncated_rows: int
    unknown_fraction: float
    max_tokens: int
    label_names: tuple[str, ...]

    def describe(self) -> str:
        cut = f" · {self.truncated_rows:,} truncated at {self.max_tokens}" if self.truncated_rows else ""
        windows = f" · {self.examples:,} windows" if self.examples != self.rows else ""
        return f"{self.name} {self.rows:,} rows{windows} · {self.tokens:,} tokens{cut}"

    def records(self) -> Recorded:
        return Recorded(datasets={self.name: self})


class TrainedModel(Artifact):
    """`model/` (Hugging Face format), `validation.parquet` (predictions)."""

    run_id: str
    """The MLflow child run of this trial."""
    base: str
    model: ModelParams
    """What it started from."""
    train: TrainParams
    """What it was trained with."""
    label_names: tuple[str, ...]
    best_step: int
    optimizer_steps: int
    metric: str
    scores: dict[str, Score]
    """Validation scores at best_step."""
    settings: dict[str, float] = Field(default_factory=dict)
    """Numbers of the decision that validation chose, such as a no-answer threshold."""
    padding_free: bool = False
    """Whether its layers computed the tokens of rows alone, no padding."""
    parameters: int
    trainable_parameters: int
    parameters_changed: int
    device: str
    precision: str
    """Of matrix products: fp32 or bf16."""
    peak_memory_gib: float
    tokens_per_second: float
    """Useful (non-padding) tokens per second of training."""
    padding_fraction: float
    train_seconds: float
    data_waiting_fraction: float
    """Share of these seconds in which the rows of a step were not there yet."""
    resumed_from_step: int | None = None

    @model_validator(mode="after")
    def _everything_is_trained(self) -> TrainedModel:
        if self.trainable_parameters != self.parameters:
            raise ValueError(f"only {self.trainable_parameters:,} of {self.parameters:,} parameters are trainable")
        return self

    def describe(self) -> str:
        score = (
            f"validation {self.metric} {self.scores[self.metric]:.4f} at step {self.best_step}/{self.optimizer_steps}"
        )
        return f"{score} · {self.tokens_per_second:,.0f} tokens/s"


class Rung(Artifact):
    """`rung.json`: how good a trial is after some of its steps. Its weights wait in the folder of its training."""

    run_id: str
    """The MLflow child run of the trial."""
    model: ModelParams
    train: TrainParams
    step: int
    steps: int
    """Optimizer steps of the whole trial."""
    metric: str
    score: Score | None
    """The best on validation so far; None when the trial has failed."""
    failure: str = ""
    """Why it has no score."""
    train_seconds: float

    def describe(self) -> str:
        if self.score is None:
            return f"failed: {self.failure}"
        return f"validation {self.metric} {self.score:.4f} after {self.step} of {self.steps} steps"


class Candidate(Frozen):
    """One trained combination as selection sees it."""

    trial: dict[str, str | float | int | bool | None]
    """The parameters in which the candidates differ."""
    run_id: str
    model_fingerprint: str
    score: Score
    """Mean over the seeds it was trained with."""
    seeds: tuple[Score, ...] = ()
    """Score of each seed."""
    interval: Interval
    """Of the best seed, over resampled validation rows."""
    best_step: int


class Selection(Artifact):
    """`candidates.json`: the choice made on validation. Only this opens the test split."""

    chosen: TrainedModel
    metric: str
    compared: int
    """How many candidates were compared on the validation split."""
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1, max_length=3)]
    """The best three, best first; all are in `candidates.json`."""
    tie_break: str
    """One sentence: why this one."""

    def describe(self) -> str:
        return f"{self.metric} {self.candidates[0].score:.4f} · {self.tie_break}"

    def records(self) -> Recorded:
        return Recorded(
            metrics={0: {f"validation/{self.metric}": self.candidates[0].score}},
            tags={"apf.selection": self.tie_break, "apf.chosen_run": self.chosen.run_id},
            files=(self.path / "candidates.json",),
            folder="selection",
        )


class EvaluationReport(Artifact):
    """`predictions.parquet` (row_id, reference, prediction, …), `report.json`, `confusion.png`."""

    model_fingerprint: str
    rows: int
    metric: str
    scores: dict[str, Score]
    intervals: dict[str, Interval]
    baselines: dict[str, dict[str, Score]]
    """Baseline -> metric -> score on the same rows."""
    verdict: str
    """One sentence: is the model reliably better than the best baseline?"""

    def describe(self) -> str:
        low, high = self.intervals[self.metric]
        return f"{self.metric} {self.scores[self.metric]:.4f} [{low:.4f}, {high:.4f}] · {self.verdict}"

    def records(self) -> Recorded:
        metrics = {f"test/{name}": score for name, score in self.scores.items()}
        for name, (low, high) in self.intervals.items():
            metrics |= {f"test/{name}_low": low, f"test/{name}_high": high}
        for baseline, scores in self.baselines.items():
            metrics |= {f"baseline/{baseline}/{name}": score for name, score in scores.items()}
        drawn = sorted([*self.path.glob("*.png"), *self.path.glob("*.md")])
        files = (self.path / "report.json", self.path / "predictions.parquet", *drawn)
        return Recorded({0: metrics}, {"apf.verdict": self.verdict}, files, "test")


class RegisteredModel(Artifact):
    """A version in the MLflow registry."""

    name: str
    version: int
    model_uri: str
    """`models:/NAME/VERSION`"""
    aliases: tuple[str, ...]
    run_id: str
    """The MLflow run that the version was logged in."""
    replayed_rows: int
    """Test rows whose predictions were equal after loading the model back."""

    def describe(self) -> str:
        return f"{self.model_uri} ({', '.join(self.aliases)}) · {self.replayed_rows} rows replayed identically"


class VersionScores(Artifact):
    """`predictions.parquet`: a registered version on the same rows as another one."""

    uri: str
    """`models:/NAME/VERSION`"""
    model_fingerprint: str
    rows: int
    scores: dict[str, Score]
    label_names: tuple[str, ...]
    """The labels of the model and of the rows."""
    model_bytes: int

    def describe(self) -> str:
        shown = " · ".join(f"{name} {value:.4f}" for name, value in list(self.scores.items())[:3])
        return f"{self.uri} on {self.rows:,} test rows · {shown}"


class DriftReport(Artifact):
    """`drift.json`: new rows beside those that the champion learned from."""

    rows_then: int
    rows_new: int
    psi: dict[str, float]
    """Of labels, length and words."""
    p_values: dict[str, float]
    """Two-sample tests of labels, length and text."""
    auc: float | None
    """AUC with which a classifier separates new texts from old ones; None when there are too few."""
    embeddings: float | None = None
    """Energy distance between the champion's embeddings of old and of new texts, 0 to 1."""
    unknown_words: float = 0.0
    """Share of the words of the new rows that are in none of the old ones."""
    drifted: tuple[str, ...]
    """What is beyond the thresholds; empty when nothing is."""

    def describe(self) -> str:
        said = "; ".join(self.drifted) or ("no drift" if self.auc is not None else "too few for a comparison")
        return f"{self.rows_new:,} new rows against {self.rows_then:,} · {said}"

    def records(self) -> Recorded:
        values = {"auc": self.auc, "embeddings": self.embeddings, "unknown_words": self.unknown_words}
        values |= {f"psi_{name}": value for name, value in self.psi.items()}
        metrics = {f"drift/{name}": value for name, value in values.items() if value is not None}
        return Recorded({0: metrics}, {"apf.drift": self.describe()}, (self.path / "drift.json",), "drift")


class ScratchModel(Artifact):
    """`model/`: configuration, tokenizer and random weights that training starts from."""

    architecture: str
    parameters: int
    vocab_size: int
    unknown_fraction: float
    """Share of the train split's tokens that the tokenizer does not know."""

    def describe(self) -> str:
        unknown = f" · {self.unknown_fraction:.2%} unknown" if self.unknown_fraction else ""
        return f"{self.architecture} · {self.parameters:,} parameters · {self.vocab_size:,} tokens{unknown}"


class LearningCurve(Artifact):
    """`curve.json` and `curve.png`: validation scores after training on growing parts of train."""

    metric: str
    rows: tuple[int, ...]
    """Train rows of each point, ascending."""
    scores: tuple[Score, ...]
    intervals: tuple[Interval, ...]
    gain: float | None
    """What twice the rows of the last point would add to the metric; None where the points do not say."""
    gain_interval: Interval | None
    verdict: str
    """One sentence: what would twice the rows bring?"""

    def describe(self) -> str:
        return self.verdict

    def records(self) -> Recorded:
        metrics = {n: {f"validation/{self.metric}": s} for n, s in zip(self.rows, self.scores, strict=True)}
        files = (self.path / "curve.json", self.path / "curve.png")
        return Recorded(metrics, {"apf.verdict": self.verdict}, files, "curve")
