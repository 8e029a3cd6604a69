"""A disk that fills up, then has room again. As root alone: small file systems are mounted.

For each size the command works with that much room; then the room grows and the same command is run again. A size went
well when the first ended by itself, well or with one readable error, and the second as the undisturbed run.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.campaign.common import SMOKE, Cases, Figure, Workbench, differences, last_line, undisturbed

COMMAND = (SMOKE, "runtime.checkpoint_minutes=0.01")
MEBIBYTES, QUICK_MEBIBYTES = (1, 2, 3, 4, 6, 8, 10, 12), (3,)
SECONDS = 300.0
"""In which a command has to say that the disk is full."""


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of sizes at which it was said, and nothing was lost."""
    cases = Cases("sizes of a full disk were said, and lost nothing")
    if os.geteuid() != 0:
        print("   not run: mounting a small file system takes root")
        return cases.figure
    expected = undisturbed(bench, *COMMAND)
    for mebibytes in QUICK_MEBIBYTES if quick else MEBIBYTES:
        with small_disk(bench.folder / f"disk-{mebibytes}", mebibytes) as disk:
            first = bench.run(disk / "mlruns", "run", *COMMAND, seconds=SECONDS)
            problems = [f"a traceback: {last_line(first)}"] if "Traceback" in first.stdout else []
            problems += [f"it did not end in {SECONDS:.0f} s"] if first.returncode == -signal.SIGKILL else []
            problems += bench.orphans(20)
            subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
            second = bench.run(disk / "mlruns", "run", *COMMAND)
            if second.returncode:
                problems.append(f"with room again: {last_line(second)}")
            else:
                problems += differences(expected, disk / "mlruns")
        cases.add(f"{mebibytes} MiB", problems, f"{first.returncode}: {last_line(first)[:120]}")
    return cases.figure


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system in memory of that size, within the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
