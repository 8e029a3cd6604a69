"""The stages of word vectors, as `apf_tasks/stages.py` has those of the families."""

from __future__ import annotations

from pathlib import Path

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.cache.stage import stage
from apf_tasks.params.data import DataParams
from apf_tasks.params.word_vectors import CorpusParams, ProbeParams, VectorsParams
from apf_tasks.stages import registry_identity, source_identity, still_registered
from apf_tasks.word_vectors.artifacts import Corpus, TrainedVectors, VectorReport


@stage(
    libraries=["jieba", "pandas", "pyarrow", "polib", "charset-normalizer", "datasets"],
    identity=source_identity,
)
def read_corpus(out: Path, data: DataParams, corpus: CorpusParams) -> Corpus:
    """The texts of the source as sentences of words, some of them held out."""
    from apf_tasks.word_vectors.corpus import read_corpus

    return read_corpus(out, data, corpus)


@stage(libraries=["gensim", "numpy", "safetensors", "jieba"])
def train_vectors(out: Path, corpus: Corpus, settings: VectorsParams) -> TrainedVectors:
    """Word2Vec over the sentences."""
    from apf_tasks.word_vectors import training

    return training.train_vectors(out, corpus, settings)


@stage(libraries=["gensim", "numpy", "safetensors", "jieba", "matplotlib", "scikit-learn", "scipy"])
def probe_vectors(out: Path, corpus: Corpus, trained: TrainedVectors, probe: ProbeParams) -> VectorReport:
    """Nearest words, analogies, agreement with people, a picture."""
    from apf_tasks.word_vectors import probes

    return probes.evaluate_vectors(out, corpus, trained, probe)


@stage(
    code=["word_vectors.served_model"],
    libraries=["mlflow", "safetensors", "numpy", "pandas"],
    identity=registry_identity,
    exists_outside=still_registered,
)
def register_vectors(
    out: Path, corpus: Corpus, trained: TrainedVectors, report: VectorReport, name: str
) -> RegisteredModel:
    """The vectors in the registry, replayed before."""
    from apf_tasks.word_vectors import register

    return register.register_vectors(out, corpus, trained, report, name)
