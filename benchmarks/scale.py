"""What full-parameter training takes on many GPUs, on paper: docs/SCALE.md is what this prints. Nothing is measured.

python -m benchmarks.scale > docs/SCALE.md
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9
BATCH = 256
"""Rows of an optimizer step."""
FEW = 4
"""Rows of a forward pass."""
LENGTH = 2048
"""Tokens of a row; packed, so none is padding."""


@dataclass(frozen=True)
class Shape:
    """A decoder: as its configuration has it."""

    name: str
    layers: int
    hidden: int
    inner: int
    key_values: int
    """Width of keys, and of values."""
    vocabulary: int
    tied: bool
    gated: bool = True

    @property
    def in_layers(self) -> int:
        """Parameters of all layers; norms and biases are left out."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.key_values
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.inner)

    @property
    def parameters(self) -> int:
        """All, with the embedding and the head."""
        return self.in_layers + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def flops_per_token(self) -> float:
        """Forward and backward: 6 for each parameter that multiplies, and attention over half of the row."""
        products = self.in_layers + self.vocabulary * self.hidden
        return 6 * products + 6 * self.layers * self.hidden * LENGTH


@dataclass(frozen=True)
class Machine:
    """GPUs as their data sheet has them, and how much of that is reached."""

    memory: float = 80 * GB
    reserved: float = 6 * GB
    """For the CUDA context, NCCL, kernels' workspace and fragmentation."""
    flops: float = 989e12
    reached: float = 0.4
    inside: float = 300e9
    """Bytes per second between GPUs of one node, one way."""
    between: float = 45e9
    """Bytes per second and GPU between nodes."""
    in_node: int = 8


SHAPES = (
    Shape("0.1 B, as GPT-2", 12, 768, 3072, 768, 50257, True, gated=False),
    Shape("1 B, as Llama 3.2", 16, 2048, 8192, 512, 128256, True),
    Shape("8 B, as Llama 3.1", 32, 4096, 14336, 1024, 128256, False),
    Shape("70 B, as Llama 3.1", 80, 8192, 28672, 1024, 128256, False),
)
WAYS = {
    # bytes per parameter of weights, gradients and optimizer state
    "AdamW": 16.0,
    "Adafactor, step_in_backward": 4.05,
}
HEAD = f"""# On many GPUs, on paper

Made by `python -m benchmarks.scale`. Nothing on this page is measured, and none of it has run on a GPU so far: it says
what to expect before renting one. A step has {BATCH} rows of {LENGTH:,} tokens; GPUs are H100 SXM of 80 GB.

Assumed, each of it in [benchmarks/scale.py](../benchmarks/scale.py):

- Weights, gradients and AdamW's moments are float32, as this project keeps them: 16 bytes per parameter. Adafactor with
  `train.step_in_backward` keeps the weights and little else; a step is one forward pass then. Products are bfloat16,
  of which autocast holds a copy of the weights: 2 bytes.
- `runtime.shard` divides all but that copy by the number of GPUs, and has the copy of two layers at a time. Without it
  every GPU has everything. `step_in_backward` works on one GPU alone.
- `runtime.activations: recompute`: the input of every layer stays (2 bytes per token and unit); one layer at a time has
  34 bytes per token and unit (Korthikanti et al. 2022, arXiv:2205.05198, section 4.1, without attention's matrix).
  Logits are made in pieces of 64 MiB, and with them the gradient of the head, 2 bytes per weight. A forward pass has
  {FEW} rows.
- 6 floating-point operations per parameter and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), 8 with layers
  computed again, and those of attention. 40 % of the data sheet's 989 TFLOP/s are reached: large models with long rows
  do, small ones do not.
- 300 GB/s between the GPUs of a node, 45 GB/s per GPU between nodes. Gradients are summed once per step: 8 bytes per
  parameter. Sharded, weights are gathered twice in every pass and gradients scattered once: 12 bytes per parameter and
  pass. Communication hides behind computing: the longer of the two counts.
- 6 GB of each GPU are not ours: context, NCCL, workspaces, fragmentation.

| model | parameters | GPUs | optimizer | how | GB per GPU | fits | s per step | of it waiting | tokens/s |
|---|---|---|---|---|---|---|---|---|---|
"""


def memory(shape: Shape, machine: Machine, way: str, gpus: int, shard: bool) -> float:
    """Bytes on each GPU at the peak."""
    kept = WAYS[way] * shape.parameters / (gpus if shard else 1)
    copy = 2 * (2 * shape.in_layers / shape.layers + shape.vocabulary * shape.hidden if shard else shape.parameters)
    activations = (2 * shape.layers + 34) * FEW * LENGTH * shape.hidden
    head = 2**26 + 2 * shape.vocabulary * shape.hidden
    return kept + copy + activations + head + machine.reserved


def seconds(shape: Shape, machine: Machine, gpus: int, shard: bool) -> tuple[float, float]:
    """Of a step: computing, and communication."""
    tokens = BATCH * LENGTH / gpus
    computing = tokens * shape.flops_per_token * 8 / 6 / (machine.reached * machine.flops)
    if gpus == 1:
        return computing, 0.0
    speed = machine.inside if gpus <= machine.in_node else machine.between
    moved = (12 * BATCH / FEW / gpus if shard else 8) * shape.parameters * (gpus - 1) / gpus
    return computing, moved / speed


def row(shape: Shape, machine: Machine, way: str, gpus: int, shard: bool) -> str:
    """A line of the table."""
    computing, moving = seconds(shape, machine, gpus, shard)
    needed, step = memory(shape, machine, way, gpus, shard), max(computing, moving)
    how = "one" if gpus == 1 else "`shard`" if shard else "a copy each"
    fits = "yes" if needed <= machine.memory else "no"
    cells = [shape.name, f"{shape.parameters / GB:.2f} B", str(gpus), way, how, f"{needed / GB:.1f}", fits]
    cells += [f"{step:.2f}", f"{max(0.0, moving - computing) / step:.0%}", f"{BATCH * LENGTH / step:,.0f}"]
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The whole page."""
    machine, lines = Machine(), []
    for shape in SHAPES:
        for gpus in (1, 8, 64):
            lines.append(row(shape, machine, "AdamW", gpus, False))
            other = ("AdamW", True) if gpus > 1 else ("Adafactor, step_in_backward", False)
            lines.append(row(shape, machine, other[0], gpus, other[1]))
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
