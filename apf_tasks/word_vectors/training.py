"""The second stage of word vectors: a corpus -> vectors, with scores on text that was not trained on."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.errors import UntrainableDataError
from apf_tasks.models.word2vec import new_model, table_of, train
from apf_tasks.models.word_vectors import VECTORS, VOCABULARY, write_word_vectors
from apf_tasks.params.base import dotted
from apf_tasks.params.word_vectors import VectorsParams
from apf_tasks.runtime.progress import progress
from apf_tasks.tracking.run_logger import TrialRun, trial_run
from apf_tasks.word_vectors.artifacts import Corpus, TrainedVectors
from apf_tasks.word_vectors.corpus import HELD_OUT, SENTENCES
from apf_tasks.word_vectors.held_out import ContextScores, HeldOutContexts, draw_test, frequency_accuracy, score_test

if TYPE_CHECKING:
    from gensim.models import Word2Vec

EPOCHS = "epochs.json"
MIN_WORDS = 10
"""Fewer words than this have no neighbours to speak of."""
SAMPLED_SENTENCES = 5_000
"""Sentences, evenly spaced, that the predictions to score are drawn from."""
REPORT_WORDS = 20_000
"""Progress is told this often."""


class Lines:
    """The sentences of a file, read again for each pass; `advance` hears of the words that have been handed on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words = 0
        self.advance: Callable[[int], object] = lambda words: None

    def __iter__(self) -> Iterator[list[str]]:
        options = self.words
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                words = line.split()
                yield words
                self.words += len(words)
                if self.words - options > REPORT_WORDS:
                    options = self.words
                    self.advance(options)


@dataclass
class Epochs:
    """gensim's callback: scores both samples before the first epoch and after each."""

    train: HeldOutContexts
    held_out: HeldOutContexts
    run: TrialRun
    scored: list[dict[str, float]] = field(default_factory=list)

    def on_train_begin(self, model: Word2Vec) -> None:
        """What nothing learnt scores."""
        self.on_epoch_end(model)

    def on_epoch_begin(self, model: Word2Vec) -> None:
        """Nothing."""

    def on_epoch_end(self, model: Word2Vec) -> None:
        """Score and log."""
        found: dict[str, ContextScores | None] = {
            name: score_test(test, model.wv.vectors, model.syn1neg)
            for name, test in (("train", self.train), ("held_out", self.held_out))
        }
        metrics = {f"{name}/{n}": v for name, s in found.items() if s is not None for n, v in s._asdict().items()}
        self.run.log(len(self.scored), metrics)
        self.scored.append(metrics)

    def on_train_end(self, model: Word2Vec) -> None:
        """Nothing."""

    @property
    def note(self) -> str:
        """How it stands, for the progress line."""
        loss = self.scored[-1].get("held_out/loss", self.scored[-1].get("train/loss")) if self.scored else None
        return f"epoch {max(len(self.scored), 1)}" + (f", loss {loss:.3f}" if loss is not None else "")


def train_vectors(out: Path, corpus: Corpus, settings: VectorsParams) -> TrainedVectors:
    """Train on the corpus, score both samples after each epoch, write the vectors. Raises UntrainableDataError."""
    lines = Lines(corpus.path / SENTENCES)
    named = dict(dotted({"vectors": settings.model_dump(mode="json")}))
    with trial_run(out, "word2vec", named, None) as run:
        model = new_model(lines, settings)
        if len(model.wv) < MIN_WORDS:
            expected = f"{MIN_WORDS} or more words that occur {settings.min_count} times (vectors.min_count)"
            raise UntrainableDataError(
                "corpus", expected, str(len(model.wv)), "Give more text, or lower vectors.min_count."
            )
        counts = table_of(model).counts
        sample, held_out = (_test(model, counts, corpus, name, settings) for name in (SENTENCES, HELD_OUT))
        epochs = Epochs(sample, held_out, run)
        lines.words = 0
        words = int(model.corpus_total_words)
        started = time.perf_counter()
        with progress("word2vec", words * settings.epochs, "words") as advance:
            lines.advance = lambda done: advance(done, epochs.note)
            train(model, lines, [epochs])
        seconds = time.perf_counter() - started
        run_id = run.run_id
    table = table_of(model)
    write_word_vectors(out, table)
    (out / EPOCHS).write_text(json.dumps(epochs.scored, indent=1))
    last = epochs.scored[-1]
    return TrainedVectors(
        path=out,
        fingerprint=fingerprint_files(out, [VECTORS, VOCABULARY]),
        run_id=run_id,
        settings=settings,
        vocabulary=len(table.words),
        tokens=words,
        known_tokens=int(counts.sum()),
        first_loss=epochs.scored[0]["train/loss"],
        loss=last["train/loss"],
        held_out_loss=last.get("held_out/loss"),
        held_out_accuracy=last.get("held_out/accuracy"),
        frequency_accuracy=frequency_accuracy(held_out, counts),
        words_per_second=words * settings.epochs / seconds,
        train_seconds=seconds,
    )


def _test(model: Word2Vec, counts: np.ndarray, corpus: Corpus, name: str, settings: VectorsParams) -> HeldOutContexts:
    """The sample of one file; as many sentences of the text that is trained on as of the other."""
    written = corpus.sentences if name == SENTENCES else corpus.held_out_sentences
    step = max(1, written // min(corpus.held_out_sentences or SAMPLED_SENTENCES, SAMPLED_SENTENCES))
    index = model.wv.key_to_index
    keep = np.array([model.wv.get_vecattr(i, "sample_int") for i in range(len(model.wv))], dtype=np.float64) / 2**32
    with (corpus.path / name).open(encoding="utf-8") as file:
        sentences = (
            np.array([index[word] for word in line.split() if word in index], dtype=np.int64)
            for line in itertools.islice(file, 0, None, step)
        )
        return draw_test(sentences, counts, keep, settings)
