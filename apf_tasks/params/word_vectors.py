"""What a params file for word vectors may say. A file with a section `vectors` is one; it is read like any other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from apf_tasks.params.base import Fraction, Frozen, PositiveInt
from apf_tasks.params.data import DataParams
from apf_tasks.params.gate import RegisterParams


class CorpusParams(Frozen):
    """How text becomes sentences of words."""

    language: Literal["auto", "zh", "spaced"] = "auto"
    """`zh`: words by jieba; `spaced`: letters between spaces; `auto` goes by the characters. Lists stay as they are."""
    held_out_fraction: Fraction = 0.05
    """Share of the sentences, chosen by their text, that is held out for measurement."""


class VectorsParams(Frozen):
    """One Word2Vec training with negative sampling."""

    algorithm: Literal["skip_gram", "cbow"] = "skip_gram"
    """`skip_gram` predicts from each neighbour by itself: better for rare words. `cbow` predicts from their mean."""
    dimensions: PositiveInt = 100
    """Numbers in a vector."""
    window: PositiveInt = 5
    """Largest distance between a word and its neighbour; for every word the window is drawn from 1 to this."""
    min_count: PositiveInt = 5
    """Words that occur less often get no vector."""
    negative: PositiveInt = 5
    """Noise words per true word."""
    subsample: Annotated[float, Field(ge=0)] = 1e-3
    """Words with a larger share of the text are skipped at random. 0: never."""
    epochs: PositiveInt = 10
    """Passes over the corpus."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    """At the start; it falls linearly to 0.0001."""
    seed: int = 0
    """Seed of the initial vectors, of windows, skipped words and noise."""
    workers: PositiveInt = 1
    """Threads. With more than one the vectors differ a little each time."""


class ProbeParams(Frozen):
    """Which properties of the vectors are examined. None of it changes them."""

    words: list[str] = Field(default_factory=list)
    """Words whose nearest neighbours are shown. Empty: twelve frequent ones."""
    nearest: PositiveInt = 8
    """Number of nearest words shown for each."""
    analogies: list[Annotated[list[str], Field(min_length=4, max_length=4)]] = Field(default_factory=list)
    """Lists [a, b, c, d]: a is to b as c is to d; d is predicted."""
    similarities: Literal["wordsim353", "simlex999"] | None = None
    """English word pairs judged by people, to compare the order of the cosines with. Empty: none."""
    map_words: Annotated[int, Field(ge=3)] = 120
    """Frequent words in the picture."""
    map_method: Literal["tsne", "pca"] = "tsne"
    """How the vectors are projected to two dimensions: `tsne` keeps neighbours, `pca` keeps the largest distances."""


class WordVectorParams(Frozen):
    """One experiment with word vectors."""

    name: str
    """Experiment name; the params file's name when not written."""
    data: DataParams
    corpus: CorpusParams = Field(default_factory=CorpusParams)
    vectors: VectorsParams
    probe: ProbeParams = Field(default_factory=ProbeParams)
    register_as: RegisterParams = Field(default_factory=RegisterParams, alias="register")

    @field_validator("data")
    @classmethod
    def _text_alone(cls, data: DataParams) -> DataParams:
        if data.labels:
            raise ValueError("word vectors do not use labels; remove `labels`")
        if unknown := sorted(data.columns.keys() - {"text", "id"}):
            raise ValueError(f"columns: word vectors only read `text`; remove {', '.join(unknown)}")
        return data

    @property
    def model_name(self) -> str:
        """The name in the registry."""
        return self.register_as.name or self.name
