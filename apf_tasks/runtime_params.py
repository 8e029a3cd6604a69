"""Where to compute, how precisely, how fast. Part of `params.py`, which is where to import it from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from apf_tasks.frozen import Frozen, PositiveInt

NOT_IN_KEY: dict[str, Any] = {"in_key": False}
"""Marks a field that says how a result is made, not what it is: changing it reuses the result."""


class RuntimeParams(Frozen):
    """Where to compute and how carefully. Only the precision is part of a result's key."""

    device: Annotated[Literal["auto", "cuda", "mps", "cpu"], Field(json_schema_extra=NOT_IN_KEY)] = "auto"
    """`auto`: CUDA, else MPS, else CPU."""
    precision: Literal["auto", "fp32", "bf16", "pure_bf16"] = "auto"
    """`bf16`: matrix products in bfloat16, weights in float32. `pure_bf16`: weights, gradients and moments in bfloat16
    too, rounded stochastically; half the memory. `auto`: bf16 where the device computes it fast, else fp32."""
    devices: Annotated[PositiveInt, Field(json_schema_extra=NOT_IN_KEY)] = 1
    """Train on this many devices of a machine, a process (rank) for each. Rows per step stay `batch_size`."""
    nodes: Annotated[PositiveInt, Field(json_schema_extra=NOT_IN_KEY)] = 1
    """Train on this many machines with as many devices each. On the others run `apf join`; they share `mlruns`."""
    shard: Annotated[bool, Field(json_schema_extra=NOT_IN_KEY)] = False
    """Divide weights, gradients and optimizer state over the devices (FSDP2): for a model that fits into none."""
    activations: Annotated[
        Literal["keep", "selective", "recompute", "offload"], Field(json_schema_extra=NOT_IN_KEY)
    ] = "keep"
    """What a forward pass leaves for its backward pass. `recompute`: layers are computed again. `selective`: all but
    their matrix products. `offload`: again, from inputs in the CPU's memory (CUDA). Less memory for more time."""
    compile: Annotated[Literal["auto", "on", "off"], Field(json_schema_extra=NOT_IN_KEY)] = "auto"
    """Have torch.compile write code for the layers. `auto`: on CUDA, once the steps that are left repay the wait."""
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
