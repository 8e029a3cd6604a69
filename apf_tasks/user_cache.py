"""The folder of what can be made, or fetched, again: of a user, for all projects."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads and what is costly to make are kept: `$APF_CACHE`, else `~/.cache/apf`."""
    return Path(os.environ.get("APF_CACHE") or Path.home() / ".cache" / "apf")
