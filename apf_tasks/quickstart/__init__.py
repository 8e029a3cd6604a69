"""`apf new`: a person's data file -> a params file that says what was guessed, and why.

What is seen is what ingestion will see: the rows come from the same readers, and a sample of them goes through the
family's own check.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from apf_tasks.errors import ParamsError
from apf_tasks.params.file import load_params
from apf_tasks.quickstart.draft import Draft, draft
from apf_tasks.quickstart.sections import page
from apf_tasks.sources.data import HUB
