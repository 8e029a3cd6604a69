"""`apf new`: a person's data file -> a params file that explains what was guessed, and why.

What is seen is what ingestion will see: the rows come from the same readers, and a sample of them goes through the
family's own check.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apf_tasks.errors import DataError, ParamsError
from apf_tasks.families import family_params, get_family
from apf_tasks.ingestion import FILE_COLUMN
from apf_tasks.new_params.columns import SAMPLE, Column, columns_of, spread
from apf_tasks.new_params.matching import Guess, Match, match
from apf_tasks.new_params.names import SPOKEN
from apf_tasks.new_params.settings import language_of_rows, sides
from apf_tasks.new_params.source import Look, look
from apf_tasks.params import Params
from apf_tasks.params_file import load_params
from apf_tasks.sources import HUB

ROOM = (0.02, 0.05, 0.1, 0.2)
"""Values of `data.max_rejected` to choose from; with more bad rows than the last one, something else is wrong."""
MARGIN = 1.5


@dataclass(frozen=True)
class Draft:
    """What was found out about a source."""

    source: str
    found: Match
    looked: Look
    language: str
    """Code of the language, or two as `en-zh`."""
    rows: dict[str, int]
    """Role -> rows."""
    bad: dict[str, int]
    """Why rows that were looked at cannot be used -> how many."""
    tried: int
    """Rows that were looked at for it."""
    unused: tuple[str, ...]
    """Columns of the source that nothing is made of."""

    @property
    def labels(self) -> dict[str, str]:
        """Label -> value in the source, where files stand for labels."""
        column = next((g.source for g in self.found.guesses if g.source.name == FILE_COLUMN), None)
        return {} if column is None else {Path(name).stem: name for name in column.counts}

    @property
    def spoken(self) -> str:
        """The language in words."""
        return " and ".join(SPOKEN.get(code, code) for code in self.language.split("-"))
