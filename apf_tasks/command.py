"""The `apf` command, wherever the flows are: `flows` in a checkout, `apf_flows` where a wheel was installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

FLOWS = "flows"
"""The package with the command. A wheel calls it `apf_flows` (setup.py writes that here): a person's own folder may
have a `flows/`, and the name is theirs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit status."""
    if sys.platform == "win32":
        print(
            "apf runs on Linux and macOS: its locks are those of POSIX. On Windows use it in WSL "
            "(https://learn.microsoft.com/windows/wsl/install).",
            file=sys.stderr,
        )
        return 1
    status: int = importlib.import_module(f"{FLOWS}.cli.main").main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
