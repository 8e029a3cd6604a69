"""A family is a kind of language problem: one module here, one record of functions, found by its name.

A family module defines `PARAMS`, the options a user may write under `family:`, and `family(params)`, which gives the
record for them. Nothing else has to know the module. Modules whose name starts with an underscore are shared parts.
torch, transformers and pandas are imported inside functions: `apf check` needs this package.

Shapes: N rows, K statistics, B examples of a micro batch, T tokens. A row gives one example, or several (windows).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from apf_tasks.errors import ParamsError
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.examples import Examples
    from apf_tasks.models.pretrained import Base
