"""Word vectors as an MLflow model, asked what they were asked before, then registered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.errors import RegistryError
from apf_tasks.models.word_vectors import NEAREST, VECTORS, VOCABULARY, WordVectors, answer, read_word_vectors
from apf_tasks.tracking import run_logger
from apf_tasks.tracking.models import NOT_REGISTERED, Interface, ask_logged, log_code_model, register_logged
from apf_tasks.word_vectors.artifacts import Corpus, TrainedVectors, VectorReport

REPLAYED_WORDS = 32
SERVING_LIBRARIES = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors")


def register_vectors(
    out: Path, corpus: Corpus, trained: TrainedVectors, report: VectorReport, name: str
) -> RegisteredModel:
    """Log the vectors, replay words through the logged model, register it as `challenger` (the first as `champion`).

    Raises RegistryError when it does not answer as the vectors do; nothing is registered then.
    """
    folder = out / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (VECTORS, VOCABULARY):
        shutil.copy2(trained.path / file, folder / file)
    (folder / "README.md").write_text(model_card(corpus, trained, report, name), encoding="utf-8")
    run_id = run_logger.current_run(name)
    table = read_word_vectors(folder)
    uri, model_id = log_code_model(
        folder,
        run_id,
        code="word_vectors/served_model.py",
        interface=_interface(table),
        libraries=SERVING_LIBRARIES,
    )
    replayed = _replay(uri, table)
    tags = {
        "apf.model": trained.fingerprint,
        "apf.test": report.fingerprint,
        "apf.trial_run": trained.run_id,
        "apf.verdict": report.describe(),
    }
    return register_logged(out, name, run_id, model_id, tags, replayed)


def _interface(table: WordVectors) -> Interface:
    """What is asked, and what is answered."""
    return Interface(
        inputs={"word": "string", "other": "string"},
        outputs={"nearest": "string", "similarity": "double", "problem": "string"},
        example={"word": table.words[0], "other": table.words[1]},
        optional_inputs=("other",),
        settings={"count": NEAREST},
    )


def _replay(uri: str, table: WordVectors) -> int:
    """Ask the logged model for words from all of the vocabulary. Raises RegistryError when an answer differs."""
    words = list(table.words[:: max(1, len(table.words) // REPLAYED_WORDS)][:REPLAYED_WORDS])
    rows = pd.DataFrame({"word": words, "other": words[::-1]})
    found = ask_logged(uri, rows)
    for at, (word, other) in enumerate(zip(rows["word"], rows["other"], strict=True)):
        expected = answer(table, word, other, NEAREST)
        got = found.iloc[at].to_dict()
        if got != expected:
            raise RegistryError(f"replay of {uri}, word {word}", repr(expected), repr(got), NOT_REGISTERED)
    return len(words)


def model_card(corpus: Corpus, trained: TrainedVectors, report: VectorReport, name: str) -> str:
    """README.md of the model: what it is, what it was made of, what was measured."""
    held_out = ""
    if trained.held_out_accuracy is not None:
        held_out = (
            "On held-out sentences the true word of a context scored above a noise word in"
            f" {trained.held_out_accuracy:.1%} of the comparisons; choosing the more frequent word is right in"
            f" {trained.frequency_accuracy:.1%}.\n"
        )
    return f"""# {name}

Word vectors: {trained.vocabulary:,} words, {trained.settings.dimensions} dimensions, Word2Vec
({trained.settings.algorithm}). Trained on {trained.tokens:,} words of text ({corpus.rows:,} different rows).

{held_out}
{report.describe()}.

`vectors.safetensors` holds the matrix `vectors`, `vocabulary.json` the words of its rows and their counts.
Trained with:

```json
{json.dumps(trained.settings.model_dump(mode="json"), indent=1)}
```
"""
