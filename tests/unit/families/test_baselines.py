"""The baselines learn what is there to learn, in both kinds of script, and always answer the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from apf_tasks.families.classification.baselines import majority_label, tfidf_logistic_regression
from apf_tasks.words import is_unspaced

ENGLISH = {
    "good": ["a wonderful film", "warm and funny", "I loved it"],
    "bad": ["a dull mess", "so boring", "I hated it"],
}
CHINESE = {"good": ["非常好看", "服务热情", "很满意"], "bad": ["太难看了", "态度恶劣", "很失望"]}


def table(phrases: dict[str, list[str]], rows: int, seed: int) -> pd.DataFrame:
    """Each row joins a phrase that tells its label with one letter that does not."""
    random = np.random.default_rng(seed)
    labels = random.choice(list(phrases), rows)
    filler = random.choice(list("甲乙丙丁") if is_unspaced(phrases["good"]) else ["x", "y", "z"], rows)
    return pd.DataFrame(
        {"text": [f"{f} {random.choice(phrases[n])}" for f, n in zip(filler, labels, strict=True)], "label": labels}
    )


def test_majority() -> None:
    assert majority_label(pd.Series(["b", "a", "b"]), 3) == ["b", "b", "b"]
    assert majority_label(pd.Series(["b", "a"]), 1) == ["a"]
    assert majority_label(pd.Series(["a"]), 0) == []


@pytest.mark.parametrize("phrases", [ENGLISH, CHINESE])
@pytest.mark.parametrize("rows", [60, 1200])
def test_regression_learns_and_repeats(phrases: dict[str, list[str]], rows: int) -> None:
    train, test = table(phrases, rows, 0), table(phrases, 40, 1)
    predictions = tfidf_logistic_regression(train["text"], train["label"], test["text"], 0)
    assert predictions == test["label"].tolist()
    assert predictions == tfidf_logistic_regression(train["text"], train["label"], test["text"], 0)


def test_regression_on_three_rows() -> None:
    text, labels = pd.Series(["!!!", "?", "好"]), pd.Series(["yes", "no", "no"])
    assert tfidf_logistic_regression(text, labels, pd.Series(["?", "unseen"]), 0)[0] == "no"
    assert tfidf_logistic_regression(text, pd.Series(["yes"] * 3), pd.Series(["?", "!"]), 0) == ["yes", "yes"]


def test_script() -> None:
    assert is_unspaced(["这部电影 really 好看"])
    assert is_unspaced(["とても面白い"])
    assert not is_unspaced(["A film called 英雄, and a very long sentence about it"])
    assert not is_unspaced(["오늘 본 영화 정말 재미있었어요"]), "Korean has spaces"
    assert not is_unspaced([""]), "no text has no script"
