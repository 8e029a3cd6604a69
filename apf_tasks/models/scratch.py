"""A base model that nobody has trained yet: the tokenizer from the train split, the weights from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apf_tasks.artifacts import ScratchModel
from apf_tasks.errors import ModelError, UntrainableDataError
from apf_tasks.models.config import build_config
from apf_tasks.models.pretrained import load_tokenizer
from apf_tasks.models.tokenizer import train_tokenizer
from apf_tasks.params.architectures import convention, language_models
from apf_tasks.params.model import ModelParams, TokenizerParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def build_from_scratch(
    out: Path, texts: Sequence[str], model: ModelParams, tokenizer: TokenizerParams, tokenizer_folder: Path | None
) -> ScratchModel:
    """A model folder with random weights for `model.architecture` and a tokenizer that knows the train split.

    `texts` are those of the train split; `tokenizer_folder` holds the tokenizer that `tokenizer.base` names, None where
    one is trained. The fingerprint is empty: whoever stores the folder adds it.

    Keeps the head of a language model where the architecture has one, so that pre-training starts from all of it.
    Raises ModelError when sizes and tokenizer do not fit, UntrainableDataError when the tokenizer does not know the
    text.
    """
    architecture = str(model.architecture)
    words = _tokenizer(texts, model, tokenizer, architecture, tokenizer_folder)
    unknown = unknown_fraction(words, texts)
    if unknown > model.max_unknown_fraction:
        expected = f"at most {model.max_unknown_fraction:.0%} unknown tokens (model.max_unknown_fraction)"
        do = "Raise tokenizer.vocab_size, or use tokenizer.train: bpe, which has no unknown tokens."
        raise UntrainableDataError("the tokenizer on the train split", expected, f"{unknown:.0%}", do)
    network = random_model(model, words)
    save_base(network, words, out / "model")
    return ScratchModel(
        path=out,
        fingerprint="",
        architecture=architecture,
        parameters=network.num_parameters(only_trainable=True),  # Marian's sines are none
        vocab_size=len(words),
        unknown_fraction=unknown,
    )


def unknown_fraction(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Share of the tokens of these texts that are unknown; 0 for a tokenizer that knows every byte."""
    if tokenizer.unk_token_id is None or not texts:
        return 0.0
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return sum(row.count(tokenizer.unk_token_id) for row in ids) / max(1, sum(len(row) for row in ids))


def _tokenizer(
    texts: Sequence[str], model: ModelParams, params: TokenizerParams, architecture: str, folder: Path | None
) -> PreTrainedTokenizerBase:
    """The tokenizer that `params` ask for, with `model.added_tokens`."""
    if folder is None:
        trained: PreTrainedTokenizerBase = train_tokenizer(texts, params, architecture)
        trained.add_tokens(model.added_tokens)
        return trained
    settings = model.model_copy(update={"init": "pretrained", "base": params.base})
    found = load_tokenizer(folder, settings, needs_offsets=False)
    if found.eos_token is None and convention(architecture) != "bert":
        do = "Use a tokenizer of such a model, or train one."
        raise ModelError(
            f"tokenizer of {params.base}", f"a token that ends a text, for {architecture}", "no eos_token", do
        )
    return found


def random_model(model: ModelParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of `model.architecture` and `model.sizes` in float32, drawn from `model.seed`. Raises ModelError."""
    import torch
    import transformers

    architecture = str(model.architecture)
    auto_class = getattr(transformers, language_models()[architecture])
    try:
        config = build_config(architecture, model.sizes, tokenizer, model.max_tokens)
        with torch.random.fork_rng():
            torch.manual_seed(model.seed)
            network: PreTrainedModel = auto_class.from_config(config, dtype=torch.float32)
        if architecture == "mt5":
            # embeddings of deviation 1, read as output weights and never scaled: a first loss far above ln(vocabulary)
            network.get_input_embeddings().weight.data *= config.d_model**-0.5
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        found, do = " ".join(str(error).split()), "Correct model.sizes; docs/PARAMS.md has the names."
        raise ModelError("model.sizes", f"sizes of a {architecture}", found, do) from error
    return network


def save_base(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model folder: configuration, weights and tokenizer."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
