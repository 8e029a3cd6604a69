"""The sections `train` and `runtime`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from apf_tasks.params.base import Fraction, Frozen, PositiveInt
from apf_tasks.params.optimizers import AdamW, Optimizer


class TrainParams(Frozen):
    """One full-parameter training. Any of these can be searched over."""

    learning_rate: Annotated[float, Field(ge=0)] = 5e-5
    """Peak learning rate."""
    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the train split; fractions are allowed."""
    batch_size: PositiveInt = 16
    """Rows per optimizer step, exactly; how they are cut into forward passes is derived."""
    micro_batch_tokens: PositiveInt | None = None
    """Most padded tokens in one forward pass. Empty: chosen for the device."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning-rate schedule after the warm-up."""
    warmup_fraction: Fraction = 0.06
    """Share of the steps in which the learning rate rises to its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled decay, on matrices only (not on biases and norms)."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Clip the gradient to this L2 norm. Empty: never."""
    optimizer: Optimizer = Field(default_factory=AdamW)
    """The optimizer and its own options."""
    step_in_backward: bool = False
    """Update each tensor as soon as its gradient is computed, then free it: less memory. A step is one forward pass
    then, and `max_grad_norm` has to be empty."""
    evaluate_every_epochs: Annotated[float, Field(gt=0)] = 0.5
    """Validate after this many epochs."""
    evaluate_every_steps: PositiveInt | None = None
    """Validate after this many steps instead."""
    patience: PositiveInt | None = None
    """Stop after this many validations without a better score. Empty: never."""
    seed: int = 0
    """Seed of the order of rows, of dropout and of new weights."""

    @model_validator(mode="after")
    def _nothing_needs_the_whole_gradient(self) -> TrainParams:
        if self.step_in_backward and self.max_grad_norm is not None:
            raise ValueError("step_in_backward needs `max_grad_norm:` (empty): the norm is known after the updates")
        if self.step_in_backward and not self.optimizer.by_tensor:
            raise ValueError(f"step_in_backward needs a per-tensor optimizer, not {self.optimizer.name}")
        return self


NOT_IN_KEY: dict[str, Any] = {"in_key": False}
"""Marks a field that says how a result is made, not what it is: changing it reuses the result."""


class RuntimeParams(Frozen):
    """Where to compute and how carefully. Only the precision is part of a result's key."""

    device: Annotated[Literal["auto", "cuda", "mps", "cpu"], Field(json_schema_extra=NOT_IN_KEY)] = "auto"
    """`auto`: CUDA, else MPS, else CPU."""
    precision: Literal["auto", "fp32", "bf16", "pure_bf16"] = "auto"
    """`bf16`: matrix products in bfloat16, weights in float32. `pure_bf16`: weights, gradients and moments in bfloat16
    too, rounded stochastically; half the memory. `fp32`: on CUDA with matrix products in TF32. `auto`: bf16 where the
    device computes it fast, else fp32."""
    devices: Annotated[PositiveInt, Field(json_schema_extra=NOT_IN_KEY)] = 1
    """Train on this many devices of a machine, a process (rank) for each. Rows per step stay `batch_size`."""
    nodes: Annotated[PositiveInt, Field(json_schema_extra=NOT_IN_KEY)] = 1
    """Train on this many machines with as many devices each. On the others run `apf join`; they share `mlruns`."""
    shard: Annotated[bool, Field(json_schema_extra=NOT_IN_KEY)] = False
    """Divide weights, gradients and optimizer state over the devices (FSDP2): for a model too large for one."""
    activations: Annotated[
        Literal["keep", "selective", "recompute", "offload"], Field(json_schema_extra=NOT_IN_KEY)
    ] = "keep"
    """What a forward pass leaves for its backward pass. `recompute`: layers are computed again. `selective`: all but
    their matrix products. `offload`: again, from inputs in the CPU's memory (CUDA). Less memory for more time."""
    compile: Annotated[Literal["auto", "on", "off"], Field(json_schema_extra=NOT_IN_KEY)] = "auto"
    """Compile the layers with torch.compile. `auto`: on CUDA, if the remaining steps repay the compilation."""
    checkpoint_minutes: Annotated[float, Field(ge=0, json_schema_extra=NOT_IN_KEY)] = 5
    """Write a resumable checkpoint this often (minutes)."""

    @model_validator(mode="after")
    def _pure_weights_are_of_one_rank(self) -> RuntimeParams:
        if self.precision == "pure_bf16" and self.ranks > 1:
            raise ValueError("precision: pure_bf16 is for one device; with more of them write `bf16` and `shard: true`")
        return self

    @property
    def ranks(self) -> int:
        """Processes that train one model."""
        return self.devices * self.nodes
