"""torchrun with the ranks of a call: on a CPU they are forked from a process that has imported what they need.

Importing takes seconds of a core, once on a machine instead of once for each rank, and what is imported is in memory
once. A process that has seen CUDA must not be forked: there each rank imports for itself.
"""

from __future__ import annotations

from multiprocessing import forkserver
from pathlib import Path

from apf_tasks.runtime._nodes import FORKED

COMMAND = "import sys; from apf_tasks.runtime._torchrun import main; main(sys.argv[1], sys.argv[2:])"
"""For `python -c`: a main module would be run again in each rank."""


def main(folder: str, options: list[str]) -> None:
    """Start the ranks that torchrun's `options` describe, and wait for them."""
    if FORKED in options:
        forkserver.set_forkserver_preload(["apf_tasks.runtime.launch", "apf_tasks.training.train"])
        forkserver.ensure_running()  # imports, and so does this process
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    # torchrun's parser wants a program, which nobody runs here
    given = parse_args([*options, "--module", "apf_tasks.runtime.launch"])  # type: ignore[no-untyped-call]
    config, _, _ = config_from_args(given)
    elastic_launch(config, run_rank)(folder)


def run_rank(folder: str) -> None:
    """One of them."""
    from apf_tasks.runtime._rank import rank_main

    rank_main(Path(folder))
