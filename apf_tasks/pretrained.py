"""Loading a pretrained model and its tokenizer from a folder, and saying what does not fit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.errors import ModelError
from apf_tasks.params import ModelParams

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger("apf")

MAX_NEW_FRACTION = 0.5
"""A base that leaves more than this share of the parameters untrained is not this architecture's base."""


@dataclass(frozen=True)
class Base:
    """What encoding and decoding need to know of a base model: everything but its weights."""

    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    max_tokens: int
    """Most tokens of one input, special tokens included."""

    @property
    def pad_id(self) -> int:
        """Token id that fills the right of a batch."""
        return pad_id(self.tokenizer)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether one stack reads the input and another writes the output."""
        return bool(self.config.is_encoder_decoder)


def load_base(folder: Path, model: ModelParams, needs_offsets: bool = False) -> Base:
    """Tokenizer and configuration of a model folder, checked against each other. Raises ModelError."""
    from transformers import AutoConfig

    tokenizer = load_tokenizer(folder, model, needs_offsets)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    check_fit(tokenizer, folder, model)
    return Base(tokenizer, config, model.max_tokens)


def load_tokenizer(folder: Path, model: ModelParams, needs_offsets: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with a padding token. Raises ModelError.

    With `needs_offsets` it must be a fast one, which knows the characters of each token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"tokenizer of {model.base}", "files AutoTokenizer loads", str(error), "Check model.base."
        ) from error
    if needs_offsets and not tokenizer.is_fast:
        do = "Save it once with transformers as tokenizer.json into the model folder."
        raise ModelError(f"tokenizer of {model.base}", "a fast tokenizer (tokenizer.json)", "a slow one", do)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token id that fills the right of a batch; any will do where the mask hides it."""
    found = tokenizer.pad_token_id
    return found if isinstance(found, int) else 0


def check_fit(tokenizer: PreTrainedTokenizerBase, folder: Path, model: ModelParams) -> None:
    """Stop before training when ids or positions would lie outside the embeddings. Raises ModelError."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    if len(tokenizer) > config.vocab_size:
        do = "Use the tokenizer this model was trained with."
        raise ModelError(
            f"tokenizer of {model.base}", f"at most {config.vocab_size:,} tokens", f"{len(tokenizer):,}", do
        )
    # RoBERTa counts positions from pad_token_id + 1
    offset = (config.pad_token_id or 0) + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    positions = getattr(config, "max_position_embeddings", None)
    if positions and model.max_tokens > positions - offset:
        found = f"{model.max_tokens} asked for"
        do = f"Write model.max_tokens: {positions - offset} or less."
        raise ModelError("model.max_tokens", f"at most {positions - offset}, the positions of {model.base}", found, do)


def load_pretrained(folder: Path, model: ModelParams, auto_class: str, **config: Any) -> PreTrainedModel:
    """The model in float32 with the head of `auto_class`. Weights the base does not have are drawn new and named.

    Raises ModelError when most of the model would be new, or the files cannot be loaded.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is new or missing is said below, in one line
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded, info = getattr(transformers, auto_class).from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=None if model.allow_pickle else True,
            trust_remote_code=model.trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **config,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        found, do = str(error).splitlines()[0], "Check model.base; a model folder needs config.json and safetensors."
        raise ModelError(f"model {model.base}", f"weights that {auto_class} loads", found, do) from error
    new = set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}
    sizes = {name: parameter.numel() for name, parameter in loaded.named_parameters()}
    fraction = sum(sizes.get(name, 0) for name in new) / sum(sizes.values())
    if fraction > MAX_NEW_FRACTION:
        found = f"{fraction:.0%} of its parameters missing in the files ({', '.join(sorted(new)[:3])}, …)"
        raise ModelError(f"model {model.base}", f"pretrained weights for {auto_class}", found, "Check model.base.")
    if new:
        logger.info("           new weights, drawn from the seed: %s", ", ".join(sorted(new)))
    loaded.config.name_or_path = model.base
    return loaded  # type: ignore[no-any-return]
