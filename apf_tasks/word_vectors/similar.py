"""Asking registered word vectors."""

from __future__ import annotations

from typing import Any

import pandas as pd

from apf_tasks.errors import DataError, RegistryError


def similar(model_uri: str, word: str, other: str | None, count: int) -> dict[str, Any]:
    """What the model says: `nearest` (JSON), and `similarity` when there is another word.

    Raises RegistryError when the model is not about words, DataError with the nearest spelling for an unknown word.
    """
    from apf_tasks.evaluation.registered.model import load_registered

    model = load_registered(model_uri)
    columns = list(model.version.inputs)
    if columns != ["word", "other"]:
        found = "one that takes " + ", ".join(columns)
        raise RegistryError(model_uri, "word vectors", found, "`apf predict` scores a file with it.")
    row = {"word": [word]} if other is None else {"word": [word], "other": [other]}
    answer = {str(k): v for k, v in model.predict(pd.DataFrame(row), count=count).iloc[0].items()}
    if answer["problem"]:
        said, _, do = str(answer["problem"]).partition(". ")
        raise DataError(model_uri, "a known word", said.removeprefix("unknown word "), do)
    return answer
