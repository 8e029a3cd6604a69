"""The cases: one per family, and how Trainer does each of them best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.derived_rows import PARAMS, Derive, documents, instructions, questions, summaries


@dataclass(frozen=True)
class Case:
    """One experiment that both sides carry out."""

    params: Path
    """Its params file."""
    rows: int
    """Rows of all splits together."""
    best_batch: int
    """Rows of a batch with which Trainer evaluates fastest on a CPU; its default is 8."""
    groups: bool = True
    """Whether rows of like length in a batch save Trainer anything; blocks of equal length leave nothing to save."""
    derive: Derive | None = None
    """What makes the rows, where the params name no source."""
    warm_up_epochs: float = 0
    """A model from scratch is trained this long before either side starts: one that has learned nothing writes outputs
    of no sensible length."""
    vocabulary: int | None = None
    """Rows of the embeddings of a model from scratch, where it has more than its tokenizer has tokens."""


CASES = {
    "sentiment": Case(PARAMS / "sentiment.yaml", 2000, 32),
    "ner": Case(PARAMS / "ner.yaml", 1200, 32),
    "question_answering": Case(PARAMS / "question_answering.yaml", 400, 16, derive=questions),
    "summarization": Case(PARAMS / "summarization.yaml", 750, 32, derive=summaries, warm_up_epochs=2),
    "translation": Case(PARAMS / "translation.yaml", 2400, 64, warm_up_epochs=4),
    "causal_lm-documents": Case(PARAMS / "causal_lm-documents.yaml", 160, 8, False, documents),
    "causal_lm-instructions": Case(PARAMS / "causal_lm-instructions.yaml", 2000, 32, derive=instructions),
    "causal_lm-large_vocabulary": Case(
        PARAMS / "causal_lm-instructions.yaml", 800, 32, derive=instructions, vocabulary=50_257
    ),
    "masked_lm": Case(PARAMS / "masked_lm.yaml", 160, 8, False, documents),
}
