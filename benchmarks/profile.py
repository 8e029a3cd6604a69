"""Where the time of a training step goes, by torch's profiler, as a Markdown table.

OMP_NUM_THREADS=1 python -m benchmarks.profile [--case sentiment] [--rows 800] [--steps 10] [--precision fp32]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from apf_tasks.training.state import prepare_training
from benchmarks.cases import CASES
from benchmarks.job import Job, prepare

KINDS = {
    "losses": ("nll_loss", "log_softmax", "cross_entropy"),
    "layer norms": ("layer_norm", "rsqrt", "rms_norm"),
    "matrix products": ("mm", "addmm", "bmm", "linear", "mkldnn"),
    "attention": ("scaled_dot_product", "softmax"),
    "dropout": ("bernoulli", "dropout"),
    "optimizer": ("_fused_", "adafactor"),
    "copies and casts": ("copy_", "clone", "cat", "_to_copy", "contiguous"),
    "zeros and sums of gradients": ("zero", "fill_", "embedding_dense_backward", "accumulate"),
    "norm of the gradient": ("linalg_vector_norm",),
    "activation functions": ("gelu", "silu", "relu", "tanh"),
}
"""Kinds of operations by parts of their names in torch; the first that fits counts."""
WARM = 3


def kind_of(name: str) -> str:
    """The kind of an operation."""
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "all else")


def shares(job: Job, folder: Path, steps: int) -> dict[str, float]:
    """Kind -> share of the time that operations took themselves, over so many steps; most first."""
    loop = prepare_training(folder, job.trial).steps_to_come()
    for _ in range(WARM):
        next(loop)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            next(loop)
    loop.close()
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        spent[kind_of(event.key.lower())] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {kind: time / whole for kind, time in spent.most_common()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="sentiment")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        job = prepare(CASES[given.case], Path(name), given.rows, given.precision)
        found = shares(job, Path(name) / "out", given.steps)
    print(f"| {given.case}, {given.precision} | share of a step |\n|---|---|")
    for kind, share in found.items():
        print(f"| {kind} | {share:.1%} |")


if __name__ == "__main__":
    main()
