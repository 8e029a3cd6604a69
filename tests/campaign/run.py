"""Runs fault campaigns and prints a table of their figures.

    python -m tests.campaign.run [NAME …] [--quick] [--seed N] [--work FOLDER]

NAME is a module of this folder: kills, concurrency, stored_damage, disk_full, damaged_inputs, odd_params,
hostile_archives, servers_away, serve_faults; all of them by default. --quick: few cases of each, minutes in place of
hours. --work: a folder for what they make, which stays; a temporary one by default. They talk to this machine alone
and end only processes that they have started. Exits with 1 when a case went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.campaign.common import Figure, Workbench

CAMPAIGNS = (
    "kills",
    "concurrency",
    "stored_damage",
    "disk_full",
    "damaged_inputs",
    "odd_params",
    "hostile_archives",
    "servers_away",
    "serve_faults",
)


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CAMPAIGNS))
    parser.add_argument("--quick", action="store_true", help="few cases of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder for what is made; it stays")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(CAMPAIGNS):
        parser.error(f"expected names of {', '.join(CAMPAIGNS)}, found {', '.join(sorted(unknown))}")
    with _folder(asked.work) as folder:
        found = {name: campaign(name, folder / name, asked.quick, asked.seed) for name in asked.names or CAMPAIGNS}
    print(table(found))
    return int(any(figure.wrong for figure, _ in found.values()))


def campaign(name: str, folder: Path, quick: bool, seed: int) -> tuple[Figure, float]:
    """Its figure, and the seconds that it took."""
    print(name, flush=True)
    began = time.monotonic()
    figure: Figure = importlib.import_module(f"tests.campaign.{name}").figure(Workbench(folder), quick, seed)
    return figure, time.monotonic() - began


def table(found: dict[str, tuple[Figure, float]]) -> str:
    """In Markdown, and below it what went wrong."""
    lines = ["| campaign | figure | minutes |", "|---|---|---|"]
    lines += [f"| {name} | {figure} | {seconds / 60:.1f} |" for name, (figure, seconds) in found.items()]
    return "\n".join([*lines, *(f"{name}: {line}" for name, (figure, _) in found.items() for line in figure.wrong)])


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="apf-campaign-") as made:
        yield Path(made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
