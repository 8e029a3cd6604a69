"""Layers that are computed again in the backward pass instead of kept."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from apf_tasks.errors import UnsuitableParamsError


def apply_activation_checkpointing(model: PreTrainedModel, activations: str) -> None:
    """Have the layers compute again in the backward pass what they did, as `runtime.activations` says.

    Chen et al. 2016, arXiv:1604.06174. Raises ParamsError for a model that cannot.
    """
    if activations == "keep":
        return
    if not model.supports_gradient_checkpointing:
        found = f"{type(model).__name__}, which cannot compute its layers again"
        raise UnsuitableParamsError("runtime.activations", "a model that can", found, "Write runtime.activations=keep.")
    options: dict[str, Any] = {"use_reentrant": False}
    if activations == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _products())
    model.activation_checkpointing_enable(options, offload=activations == "offload")


def _products() -> list[Any]:
    """Operations whose results are worth keeping: they are most of the time, and little of the memory."""
    aten = torch.ops.aten
    names = ["mm", "addmm", "bmm", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"]
    names += ["_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_cudnn_attention"]
    return [getattr(aten, name).default for name in names if hasattr(aten, name)]
