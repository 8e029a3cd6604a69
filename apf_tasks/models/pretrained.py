"""Loading a pretrained model and its tokenizer from a folder, and saying what does not fit."""

from __future__ import annotations

import json
import logging
import re
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.context import scoped
from apf_tasks.errors import ModelError, SourceError, is_system_error
from apf_tasks.models.config import position_offset, positions
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger("apf")

MAX_NEW_FRACTION = 0.5
"""A base that leaves more than this share of the parameters untrained is not this architecture's base."""
_no_weights: ContextVar[bool] = ContextVar("no_weights", default=False)
VOCABULARY = re.compile(
    r"tokenizer.json|.*vocab.*|.*\.(model|spm|bpe|tiktoken)|bpe\.codes|tokenizer-.*\.json|tekken\.json|.*\.gguf"
)
"""Names of the files in which tokenizers keep their vocabulary."""
NO_VOCABULARY = re.compile(r"auto_map|ByT5Tokenizer|CanineTokenizer|PerceiverTokenizer")
"""In tokenizer_config.json: tokenizers that need no such file, and code of one's own."""
SHOWN_FILES = 8
PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>")
"""What padding is called in vocabularies; the first is added where there is none."""


@dataclass(frozen=True)
class BaseModelInfo:
    """What encoding and decoding need to know of a base model: everything but its weights."""

    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    max_tokens: int
    """Most tokens of one input, special tokens included."""

    @property
    def pad_id(self) -> int:
        """Token id that fills the right of a batch; never the one that ends a text."""
        return pad_id(self.tokenizer)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether one stack reads the input and another writes the output."""
        return bool(self.config.is_encoder_decoder)


def load_base(folder: Path, model: ModelParams, needs_offsets: bool = False) -> BaseModelInfo:
    """Tokenizer and configuration of a model folder, checked against each other. Raises ModelError."""
    config = _load_config(folder, model)
    tokenizer = _tokenizer_for(config, folder, model, needs_offsets)
    check_fit(tokenizer, config, model)
    return BaseModelInfo(tokenizer, config, model.max_tokens)


def load_tokenizer(folder: Path, model: ModelParams, needs_offsets: bool = True) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, with `model.added_tokens` and a padding token of its own. Raises ModelError.

    With `needs_offsets` it must be a fast one, which knows the characters of each token.
    """
    return _tokenizer_for(_load_config(folder, model), folder, model, needs_offsets)


def _tokenizer_for(
    config: PreTrainedConfig, folder: Path, model: ModelParams, needs_offsets: bool
) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    _check_tokenizer_files(folder, model)
    # AutoTokenizer would rebuild a tokenizer without a class of its own as the class of the model type (Qwen2)
    loader = PreTrainedTokenizerFast if _is_plain(folder) else AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        where, expected = f"tokenizer of {model.base}", "files AutoTokenizer loads"
        raise _load_error(error)(where, expected, str(error), "Check model.base.") from error
    if needs_offsets and not tokenizer.is_fast:
        do = "Save it once with transformers as tokenizer.json into the model folder."
        raise ModelError(f"tokenizer of {model.base}", "a fast tokenizer (tokenizer.json)", "a slow one", do)
    tokenizer.add_tokens(model.added_tokens)
    _choose_padding(tokenizer)
    # a decoder would look types up among its words, and RoBERTa has one type alone
    typed = getattr(config, "type_vocab_size", 0) > 1
    others = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    tokenizer.model_input_names = [*others, "token_type_ids"] if typed else others
    return tokenizer


def _check_tokenizer_files(folder: Path, model: ModelParams) -> None:
    """Raises ModelError where no file has a vocabulary: transformers would make an empty tokenizer of that."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    settings = folder / "tokenizer_config.json"
    if NO_VOCABULARY.search(_text_of(settings)) or any(VOCABULARY.fullmatch(name) for name in names):
        return
    do = "Copy them (tokenizer.json, tokenizer_config.json) from the model it was trained from into that folder."
    shown = ", ".join(names[:SHOWN_FILES]) or "no files"
    raise ModelError(f"tokenizer of {model.base}", f"tokenizer files in {folder}", f"none among {shown}", do)


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _is_plain(folder: Path) -> bool:
    """Whether tokenizer.json alone says how the tokenizer works."""
    try:
        written = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    plain = written.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return plain and "auto_map" not in written and (folder / "tokenizer.json").is_file()


def _choose_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Padding that is not the end of text: whatever hides the one must not hide the other, or a model never stops."""
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return
    known = tokenizer.get_vocab()
    unknown = tokenizer.unk_token if tokenizer.unk_token != tokenizer.eos_token else None
    found = next((token for token in (*PADDING, unknown) if token in known), PADDING[0])
    tokenizer.add_special_tokens({"pad_token": found})


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token id that fills the right of a batch; any will do where the mask hides it."""
    found = tokenizer.pad_token_id
    return found if isinstance(found, int) else 0


def _load_config(folder: Path, model: ModelParams, **changes: Any) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code, **changes)  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError) as error:
        where, found = f"model {model.base}", str(error).splitlines()[0]
        raise _load_error(error)(where, "a config.json of transformers", found, "Check model.base.") from error


def _load_error(error: BaseException) -> type[ModelError | SourceError]:
    """What it means that files do not load: that they are no model, or that they cannot be read here and now."""
    return SourceError if is_system_error(error) else ModelError


def _vocab_size(config: PreTrainedConfig) -> int:
    """Tokens of the model that writes; an encoder-decoder made of two models has no number of its own."""
    return int(config.get_text_config(decoder=True).vocab_size)


def check_fit(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, model: ModelParams) -> None:
    """Stop before training when ids or positions would lie outside the embeddings. Raises ModelError."""
    size = _vocab_size(config)
    if len(tokenizer) > size:
        ours = {*model.added_tokens, tokenizer.pad_token}  # load_pretrained makes room for these
        own = [token for token, i in tokenizer.get_vocab().items() if i >= size and token not in ours]
        if own:
            expected, found = f"at most {size:,} tokens", f"{len(tokenizer):,}"
            do = "Use the tokenizer this model was trained with."
            raise ModelError(f"tokenizer of {model.base}", expected, found, do)
    room = positions(config)
    if room is not None and model.max_tokens > room - position_offset(config):
        most, found = room - position_offset(config), f"{model.max_tokens} requested"
        do = f"Write model.max_tokens: {most} or less."
        raise ModelError("model.max_tokens", f"at most {most}, the positions of {model.base}", found, do)


def load_pretrained(folder: Path, model: ModelParams, auto_class: str, **config: Any) -> PreTrainedModel:
    """The model in float32 with the head of `auto_class`. Weights the base does not have are drawn new and named.

    Has an embedding for every token of `load_tokenizer`, and knows its padding. Raises ModelError when most of the
    model would be new, or the files cannot be loaded.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is new or missing is said below, in one line
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    ours = list(config.get("id2label", {}).values()) if _names_labels(folder) and not _no_weights.get() else []
    if ours:  # the base's own labels first: `_by_label` makes a head for ours of it
        config = {name: value for name, value in config.items() if name not in ("num_labels", "id2label", "label2id")}
    settings = _load_config(folder, model, **config)
    tokenizer = _tokenizer_for(settings, folder, model, needs_offsets=False)
    # the row of the padding id gets no gradient: it must not be that of a token that counts
    settings.pad_token_id = pad_id(tokenizer) if pad_id(tokenizer) < _vocab_size(settings) else None
    try:
        if _no_weights.get():
            made = getattr(transformers, auto_class).from_config(settings, dtype=torch.float32)
            _fix_constants(made)
            resize_for(made, tokenizer)
            return made  # type: ignore[no-any-return]
        loaded, info = getattr(transformers, auto_class).from_pretrained(
            folder,
            config=settings,
            dtype=torch.float32,
            use_safetensors=None if model.allow_pickle else True,
            trust_remote_code=model.trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        found, do = str(error).splitlines()[0], "Check model.base; a model folder needs config.json and safetensors."
        where, expected = f"model {model.base}", f"weights that {auto_class} loads"
        raise _load_error(error)(where, expected, found, do) from error
    new = _check_new(loaded, info, model, auto_class)
    if ours:
        _by_label(loaded, ours, new, model)
    loaded.config.name_or_path = model.base
    _fix_constants(loaded)
    resize_for(loaded, tokenizer)
    return loaded  # type: ignore[no-any-return]


def without_weights() -> AbstractContextManager[None]:
    """Within the block `load_pretrained` makes models from their configuration alone: for plans, on tensors without
    numbers.
    """
    return scoped(_no_weights, True)


def _check_new(loaded: PreTrainedModel, info: dict[str, Any], model: ModelParams, auto_class: str) -> set[str]:
    """Name the weights that the files do not have. Raises ModelError when these are most of the model."""
    new = set(info["missing_keys"]) | {name for name, *_ in info["mismatched_keys"]}
    sizes = {name: parameter.numel() for name, parameter in loaded.named_parameters()}
    fraction = sum(sizes.get(name, 0) for name in new) / sum(sizes.values())
    if fraction > MAX_NEW_FRACTION:
        found = f"{fraction:.0%} of its parameters missing in the files ({', '.join(sorted(new)[:3])}, …)"
        raise ModelError(f"model {model.base}", f"pretrained weights for {auto_class}", found, "Check model.base.")
    if new:
        _log_new_weights(model.base, ", ".join(sorted(new)))
    return new


def _names_labels(folder: Path) -> bool:
    """Whether the base's configuration names the rows of its head; else they are taken in their order."""
    return "id2label" in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _by_label(loaded: PreTrainedModel, ours: list[str], new: set[str], model: ModelParams) -> None:
    """One row of the head for each of our labels: the base's, as its own names say, where the files have a head."""
    from apf_tasks.models.head_labels import arrange_head, describe, head_parameters, head_rows

    base = {int(row): name for row, name in (loaded.config.id2label or {}).items()}
    has_head = not new.intersection(head_parameters(loaded))
    rows = head_rows(base, ours) if has_head else (None,) * len(ours)
    arrange_head(loaded, ours, rows)
    if has_head and (said := describe(base, ours, rows)):
        _log_labels(model.base, said)


@cache
def _log_labels(base: str, text: str) -> None:
    """Once for a base, not for every trial of a search."""
    logger.info("           %s", text)


@cache
def _log_new_weights(base: str, names: str) -> None:
    """Once for a base, not for every trial of a search."""
    logger.info("           new weights, drawn from the seed: %s", names)


def _fix_constants(network: PreTrainedModel) -> None:
    """Make buffers of the parameters that the architecture computes and never trains: Marian's table of sines.

    The class freezes them when it is made; loading weights forgets that.
    """
    import torch

    with torch.device("meta"):
        new = type(network)(network.config)
    for name in [name for name, parameter in new.named_parameters() if not parameter.requires_grad]:
        place, _, leaf = name.rpartition(".")
        module = network.get_submodule(place)
        values = getattr(module, leaf).detach()
        delattr(module, leaf)
        module.register_buffer(leaf, values)


def resize_for(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give every token of the tokenizer an embedding, and the model the tokenizer's padding.

    A new row is the mean of the old ones, in the output too, so that a new token is about as likely as any: a random
    one can outweigh all others (Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021). A
    vocabulary that is padded to more rows than tokens stays as it is.
    """
    import torch

    old = next(network.get_input_embeddings().parameters()).shape[0]
    if len(tokenizer) > old:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        outputs = network.get_output_embeddings()  # type: ignore[no-untyped-call]
        layers = [network.get_input_embeddings(), outputs]
        tensors = {id(t): t for layer in layers if layer is not None for t in layer.parameters()}
        with torch.no_grad():
            for tensor in tensors.values():  # (vocabulary, hidden) or (vocabulary,); tied ones once
                tensor[old:] = tensor[:old].mean(0)
    network.config.pad_token_id = pad_id(tokenizer)
    if getattr(network, "generation_config", None) is not None:
        network.generation_config.pad_token_id = pad_id(tokenizer)
