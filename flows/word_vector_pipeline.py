"""Word vectors as a table of contents. Knows nothing of Prefect, so that a plan of it answers at once."""

from __future__ import annotations

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.word_vectors.params import WordVectorParams
from apf_tasks.word_vectors.stages import probe_vectors, read_corpus, register_vectors, train_vectors


def word_vector_pipeline(params: WordVectorParams) -> RegisteredModel:
    """The stages in order. Under a dry journal the same lines are the plan."""
    corpus = read_corpus(params.data, params.corpus)
    trained = train_vectors(corpus, params.vectors)
    report = probe_vectors(corpus, trained, params.probe)
    return register_vectors(corpus, trained, report, params.model_name)
