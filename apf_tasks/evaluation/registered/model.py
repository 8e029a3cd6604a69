"""A registered version inside apf: its files and what was recorded with it, used by the code of today.

So a version answers whatever the modules were called that it was registered with. The code that was logged with it is
for processes that import nothing of apf: `mlflow models serve`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from apf_tasks.evaluation.registered.recorded_config import read_config
from apf_tasks.models.word_vectors import VECTORS, answer_rows, read_word_vectors
from apf_tasks.tracking.registry import LoggedVersion, logged_version


class Registered(NamedTuple):
    """A registered version, ready to answer as it is served."""

    version: LoggedVersion
    answer: Callable[..., pd.DataFrame]

    def predict(self, rows: pd.DataFrame, **settings: Any) -> pd.DataFrame:
        """A row out for every row. `count`, of word vectors: how many nearest words."""
        return self.answer(rows, **settings)


def load_registered(uri: str) -> Registered:
    """The version that `uri` names, a fine-tuned model or word vectors. Raises RegistryError."""
    version = logged_version(uri)
    if (version.folder / VECTORS).is_file():
        return Registered(version, partial(answer_rows, read_word_vectors(version.folder)))
    from apf_tasks.evaluation.registered.fine_tuned import load_fine_tuned

    return Registered(version, load_fine_tuned(version.folder, read_config(version.uri, version.config)).predict)
