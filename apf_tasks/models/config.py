"""Model types of transformers as `model.architecture` and `model.sizes` name them: which there are, and their
configuration from sizes and a tokenizer.

transformers is imported inside functions: only an experiment from scratch needs this module before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from apf_tasks.params.architectures import _defaults, _values, config_class, convention

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def build_config(
    architecture: str, sizes: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> PreTrainedConfig:
    """The configuration of a model for this tokenizer, with room for `max_tokens` positions (the class's own if more).

    Raises ValueError when `sizes` ask for fewer positions.
    """
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": pad,
        "bos_token_id": tokenizer.bos_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id if end is None else end,
    }
    own = _defaults(architecture)
    ids |= {n: getattr(tokenizer, n) for n in ("cls_token_id", "sep_token_id", "mask_token_id") if n in own}
    if own["is_encoder_decoder"]:
        ids["decoder_start_token_id"] = end if convention(architecture) == "roberta" else pad
        ids |= {"forced_eos_token_id": end} if "forced_eos_token_id" in own else {}
    values = _values(architecture, sizes) | ids
    config = config_class(architecture)(**values)
    needed = max_tokens + position_offset(config)
    if (room := positions(config)) is None or room >= needed:
        return config
    if {"max_position_embeddings", "n_positions"} & set(sizes):
        raise ValueError(f"max_position_embeddings {room} leaves no room for {max_tokens} tokens: {needed} are needed")
    config.max_position_embeddings = needed
    return config


def positions(config: PreTrainedConfig) -> int | None:
    """Rows of the table of positions; None where there is no such limit."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def position_offset(config: PreTrainedConfig) -> int:
    """How many of the positions no token ever has: RoBERTa and its kin count from pad_token_id + 1."""
    first_is_padding = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "roberta-prelayernorm", "longformer")
    return (config.pad_token_id or 0) + 1 if config.model_type in (*first_is_padding, "mpnet", "data2vec-text") else 0
