"""What a fine-tuned classifier has to beat: predictions that cost seconds on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from apf_tasks.params.word_vectors import VectorsParams
from apf_tasks.words import Language, is_unspaced, sentences

if TYPE_CHECKING:
    from sklearn.pipeline import FeatureUnion

INVERSE_REGULARIZATION = 5.0
"""C of the regression. Measured on English film sentences and Chinese reviews: accuracy is flat from 3 to 30."""
MANY_ROWS = 1000
"""From here on an n-gram has to occur in two rows; in less data every one is kept."""
AVERAGED_VECTORS = VectorsParams(
    algorithm="skip_gram",
    dimensions=100,
    window=10,
    negative=5,
    subsample=1e-4,
    epochs=10,
    learning_rate=0.1,
)
"""Measured on the same texts: a wide window and steep steps suit a few thousand short ones. All is written out, for
defaults enter no key."""


def majority_label(train_labels: pd.Series[str], rows: int) -> list[str]:
    """The most frequent train label for every row; of equally frequent ones the first in the alphabet."""
    counts = train_labels.astype(str).value_counts()
    return [str(min(counts[counts == counts.max()].index))] * rows


def tfidf_logistic_regression(
    train_text: pd.Series[str], train_labels: pd.Series[str], test_text: pd.Series[str], seed: int
) -> list[str]:
    """Logistic regression over TF-IDF of word and character n-grams: strong for something without a pretrained model.

    Spaced text gives words and word pairs (punctuation marks are words), and 2 to 5 characters within a word. Text with
    20 % or more Han or kana characters gives 1 to 4 characters. Term frequencies enter by their logarithm.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    labels = train_labels.astype(str).tolist()
    if len(set(labels)) == 1:
        return labels[:1] * len(test_text)
    texts = train_text.astype(str).tolist()
    features = _features(texts)
    regression = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000, random_state=seed)
    model = make_pipeline(features, regression).fit(texts, labels)
    return [str(label) for label in model.predict(test_text.astype(str).tolist())]


def frequent_labels(train_labels: Sequence[Sequence[str]], rows: int) -> list[list[str]]:
    """For every row the labels that most train rows carry; the single most frequent one where none does."""
    counts = Counter(label for labels in train_labels for label in labels)
    common = sorted(label for label, count in counts.items() if count > len(train_labels) / 2)
    return [common or sorted(counts, key=lambda label: (-counts[label], label))[:1]] * rows


def tfidf_one_against_rest(
    train_text: Sequence[str], train_labels: Sequence[Sequence[str]], test_text: Sequence[str], seed: int
) -> list[list[str]]:
    """A logistic regression over TF-IDF for each label by itself; rows get the labels more probable than not."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    names = sorted({label for labels in train_labels for label in labels})
    binary = MultiLabelBinarizer(classes=names)
    features = _features(list(train_text))
    regression = OneVsRestClassifier(LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000, random_state=seed))
    regression.fit(features.fit_transform(train_text), binary.fit_transform(train_labels))
    found = binary.inverse_transform(regression.predict(features.transform(test_text)))
    return [list(labels) for labels in found]


def averaged_vectors_logistic_regression(
    train_text: Iterable[Any], train_labels: Iterable[Any], test_text: Iterable[Any], seed: int
) -> list[str]:
    """Logistic regression over the mean of the vectors of a text's words, from Word2Vec on the train texts alone.

    Chinese words come from jieba. A text without a known word has a vector of zeros.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from apf_tasks.models.word2vec import new_model, table_of, train

    texts, asked, labels = [*map(str, train_text)], [*map(str, test_text)], [*map(str, train_labels)]
    if len(set(labels)) == 1 or not asked:
        return labels[:1] * len(asked)
    language: Language = "zh" if is_unspaced(texts) else "spaced"
    known, unknown = ([[w for s in sentences(t, language) for w in s] for t in some] for some in (texts, asked))
    settings = AVERAGED_VECTORS.model_copy(update={"min_count": 2 if len(texts) >= MANY_ROWS else 1, "seed": seed})
    model = new_model(known, settings)
    train(model, known)
    table = table_of(model)

    def means(rows: list[list[str]]) -> np.ndarray:  # (N, D)
        found = np.zeros((len(rows), settings.dimensions), dtype=np.float32)
        for i, words in enumerate(rows):
            if at := [table.positions[word] for word in words if word in table.positions]:
                found[i] = table.vectors[at].mean(axis=0)
        return found

    regression = LogisticRegression(max_iter=1000, random_state=seed)
    judge = make_pipeline(StandardScaler(), regression).fit(means(known), labels)
    return [str(label) for label in judge.predict(means(unknown))]


def tfidf_ridge(train_text: Sequence[str], train_scores: Sequence[float], test_text: Sequence[str]) -> list[float]:
    """Ridge regression of the score over TF-IDF of word and character n-grams."""
    from sklearn.linear_model import Ridge

    features = _features(list(train_text))
    model = Ridge(alpha=1.0).fit(features.fit_transform(train_text), train_scores)
    return [float(value) for value in model.predict(features.transform(test_text))]


def _features(texts: list[str]) -> FeatureUnion:
    """TF-IDF of n-grams that suit the script and the number of these train texts; not fitted yet."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    min_df = 2 if len(texts) >= MANY_ROWS else 1
    if is_unspaced(texts):
        return make_union(TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=min_df))
    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=min_df),
    )
