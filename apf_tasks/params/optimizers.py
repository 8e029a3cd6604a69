"""The section `train.optimizer`: one class per optimizer, with its options and what it may not be used with.

`training/optim/from_params.py` makes the optimizers themselves.

Bytes per parameter are those of the optimizer's state; float32 weights and gradients come on top (4 and 4).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from apf_tasks.params.base import Frozen

Beta = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


class OptimizerParams(Frozen):
    """What every optimizer says of itself."""

    made_for: ClassVar[tuple[str, ...]] = ("cuda", "mps", "cpu")
    """Where it is of use."""
    shards: ClassVar[bool] = False
    """Whether it works on a part of a tensor (`runtime.shard`)."""
    by_tensor: ClassVar[bool] = True
    """Whether it may update each tensor by itself (`train.step_in_backward`)."""
    one_device: ClassVar[str] = ""
    """Why it is for a training on a single device, if it is."""

    @property
    def state_bytes(self) -> float:
        """Bytes of state per parameter, on the device."""
        return 8.0


class _Adam(OptimizerParams):
    """What all kinds of Adam have."""

    name: str
    """The optimizer."""
    beta1: Beta = 0.9
    """Decay of the mean of the gradient."""
    beta2: Beta = 0.999
    """Decay of the mean of its square."""
    epsilon: Epsilon = 1e-8
    """Added to the denominator."""


class AdamW(_Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, algorithm 2): torch's, fused. 8 bytes."""

    shards: ClassVar[bool] = True

    name: Literal["adamw"] = "adamw"
    """The optimizer."""


class AdamW8bit(_Adam):
    """AdamW with moments of 8 bits (Dettmers et al., ICLR 2022): torchao's, on CUDA. 2 bytes."""

    made_for: ClassVar[tuple[str, ...]] = ("cuda",)

    name: Literal["adamw_8bit"]
    """The optimizer."""

    @property
    def state_bytes(self) -> float:
        """Two moments of a byte, and a scale for every 256 of them."""
        return 2 + 8 / 256


class OffloadedAdamW(_Adam):
    """AdamW with its moments in CPU memory, updated there by torch's fused AdamW, for one CUDA device. 0 bytes."""

    made_for: ClassVar[tuple[str, ...]] = ("cuda",)
    by_tensor: ClassVar[bool] = False
    one_device: ClassVar[str] = "each would keep all weights, gradients and moments in the CPU's memory"

    name: Literal["adamw_offload"]
    """The optimizer."""

    @property
    def state_bytes(self) -> float:
        """None on the device."""
        return 0.0


class Adafactor(OptimizerParams):
    """Second moments by rows and columns, no first ones (Shazeer & Stern, ICML 2018): transformers'. Nearly 0 bytes."""

    name: Literal["adafactor"]
    """The optimizer."""
    decay_exponent: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The mean of squares decays by 1 - step to the power of minus this (section 7.2)."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest root mean square of an update before the learning rate (section 6)."""

    @property
    def state_bytes(self) -> float:
        """A row and a column of each matrix: nearly none."""
        return 0.0


class SGD(OptimizerParams):
    """Stochastic gradient descent, with Nesterov's momentum if there is momentum: torch's, fused. 4 bytes, or 0.

    Weight decay is part of the gradient here.
    """

    shards: ClassVar[bool] = True

    name: Literal["sgd"]
    """The optimizer."""
    momentum: Beta = 0.9
    """Decay of the velocity; 0: none is kept."""

    @property
    def state_bytes(self) -> float:
        """The velocity, if there is one."""
        return 4.0 if self.momentum else 0.0


class Muon(OptimizerParams):
    """Orthogonalised momentum for the matrices of the layers (Jordan et al. 2024), AdamW for the rest: torch's. 4 bytes
    for those matrices, 8 for the rest.

    Scaled to the size of AdamW's updates (Liu et al. 2025, arXiv:2502.16982, section 2.2), so its learning rates fit.
    """

    made_for: ClassVar[tuple[str, ...]] = ("cuda", "mps")
    by_tensor: ClassVar[bool] = False

    name: Literal["muon"]
    """The optimizer."""
    momentum: Beta = 0.95
    """Decay of the momentum."""
    iterations: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations of the orthogonalisation."""
    rest: AdamW = Field(default_factory=AdamW)
    """For embeddings, heads, biases and norms."""


NAMES = ("adamw", "adamw_8bit", "adamw_offload", "adafactor", "sgd", "muon")


def _name(value: Any) -> str:
    found = value.get("name", "adamw") if isinstance(value, dict) else getattr(value, "name", "adamw")
    return str(found)


Optimizer = Annotated[
    Annotated[AdamW, Tag("adamw")]
    | Annotated[AdamW8bit, Tag("adamw_8bit")]
    | Annotated[OffloadedAdamW, Tag("adamw_offload")]
    | Annotated[Adafactor, Tag("adafactor")]
    | Annotated[SGD, Tag("sgd")]
    | Annotated[Muon, Tag("muon")],
    Discriminator(_name, custom_error_type="optimizer", custom_error_message=f"expected a name of {', '.join(NAMES)}"),
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
]
"""Discriminated by `name`, which may be given alone; AdamW by default."""
