"""Which architectures a model from scratch may have, and how their sizes are called."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
from collections.abc import Mapping
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from apf_tasks.user_cache import cache_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


Convention = Literal["bert", "roberta", "t5", "causal"]
"""Which special tokens surround a text: [CLS] a [SEP], <s> a </s>, a </s>, or none."""


COMMON_NAMES = {
    "hidden_size": ("d_model", "dim", "n_embd"),
    "num_hidden_layers": ("num_layers", "n_layers", "n_layer", "encoder_layers", "decoder_layers"),
    "num_attention_heads": (
        "num_heads",
        "n_heads",
        "n_head",
        "attention_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
    ),
    "intermediate_size": ("d_ff", "hidden_dim", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim"),
    "max_position_embeddings": ("n_positions",),
}
"""Name understood for every architecture -> what some architectures call it. Both stacks of two get the size."""


SHORT_NAMES = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"}


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    # DeBERTaV3 (He et al., ICLR 2023): disentangled attention is what makes it a DeBERTa
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
}
"""Settings that the published models of a type have, where the class has others."""


def config_class(architecture: str) -> type[PreTrainedConfig]:
    """The configuration class of a model type. Raises KeyError for one that transformers does not have."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[architecture]


def language_models() -> dict[str, str]:
    """Model type that reads or writes text -> the Auto class that loads it with its language-model head."""
    from transformers.models.auto import modeling_auto as auto

    found: dict[str, str] = dict.fromkeys(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "AutoModelForCausalLM")
    found |= dict.fromkeys(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "AutoModelForMaskedLM")  # BERT is in both
    found |= dict.fromkeys(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, "AutoModelForSeq2SeqLM")
    return found


def problem_with(architecture: str, sizes: Mapping[str, Any]) -> str:
    """Why no model can be built from these, in words for the user; "" when nothing speaks against it."""
    known = language_models()
    if architecture not in known:
        return f"architecture {architecture!r} is not a language model of transformers.{_near(architecture, known)}"
    if "vocab_size" not in _defaults(architecture):
        return f"architecture {architecture!r} is composed of other models and has no sizes of its own"
    names = size_names(architecture)
    if unknown := [name for name in sizes if name not in names]:
        return f"sizes.{unknown[0]}: {architecture} has no such size.{_near(unknown[0], names)}"
    try:
        config = config_class(architecture)(**_values(architecture, sizes))
    except Exception as error:  # whatever the class checks: types, allowed words, sizes that do not fit together
        return f"sizes: {' '.join(str(error).split())}"
    hidden, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    if isinstance(hidden, int) and isinstance(heads, int) and hidden % heads:
        return f"sizes: hidden_size {hidden} is not a multiple of the number of attention heads, {heads}"
    return ""


def size_names(architecture: str) -> list[str]:
    """Every name that `model.sizes` may use: those of the class and those understood for all architectures."""
    own = _defaults(architecture).keys() | PUBLISHED.get(architecture, {}).keys()
    common = {name for name, others in COMMON_NAMES.items() if own & {name, *others}}
    short = {short for short, name in SHORT_NAMES.items() if name in common}
    return sorted(own - _not_sizes() | common | short)


def convention(architecture: str) -> Convention:
    """The special tokens that models of this type are published with."""
    defaults = _defaults(architecture)
    if [defaults.get(f"{name}_token_id") for name in ("bos", "pad", "eos")] == [0, 1, 2]:
        return "roberta"  # as are XLM-R, MPNet, BART and mBART
    kinds: dict[str, Convention] = {"AutoModelForSeq2SeqLM": "t5", "AutoModelForMaskedLM": "bert"}
    return kinds.get(language_models()[architecture], "causal")


def _values(architecture: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """`sizes` under the names of the class, the published settings, and what follows from the sizes."""
    own = _defaults(architecture)
    given = dict(PUBLISHED.get(architecture, {}))
    if convention(architecture) == "roberta" and "type_vocab_size" in own:
        given["type_vocab_size"] = 1  # its templates give no other type
    for name, value in sizes.items():
        common = SHORT_NAMES.get(name, name)
        places = [place for place in (common, *COMMON_NAMES.get(common, ())) if place in own]
        given |= dict.fromkeys([name] if name in own or not places else places, value)
    return _derived(own, given) | given


def _derived(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes that are usually tied to the others, where the class would give those of its largest model."""

    def size_of(name: str) -> Any:
        return next((given[n] for n in (name, *COMMON_NAMES[name]) if n in given), None)

    hidden, heads = size_of("hidden_size"), size_of("num_attention_heads")
    found: dict[str, Any] = {}
    if isinstance(hidden, int):
        inner = ("intermediate_size", *COMMON_NAMES["intermediate_size"])
        if not any(name in given for name in inner):
            found |= dict.fromkeys([name for name in inner if name in own], 4 * hidden)
        found |= {"embedding_size": min(hidden, own["embedding_size"] or hidden)} if "embedding_size" in own else {}
        if isinstance(heads, int) and heads > 0:
            found |= dict.fromkeys([name for name in ("head_dim", "d_kv") if name in own], hidden // heads)
    if isinstance(heads, int) and "num_key_value_heads" in own:
        found["num_key_value_heads"] = heads
    return found


def _defaults(architecture: str) -> dict[str, Any]:
    """Field of the configuration class -> its default (None for one that is made)."""
    return {
        f.name: None if f.default is dataclasses.MISSING else f.default
        for f in dataclasses.fields(config_class(architecture))
    }


def _not_sizes() -> set[str]:
    """Fields that the family, the tokenizer or the library sets."""
    from transformers import PreTrainedConfig

    ids = {f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep", "mask", "decoder_start", "forced_eos")}
    return {f.name for f in dataclasses.fields(PreTrainedConfig)} | {"vocab_size", "decoder_vocab_size"} | ids


def _near(word: str, known: Mapping[str, Any] | list[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Choose one of {', '.join(known)}."


def problem_with_sizes(architecture: str, sizes: Mapping[str, Any]) -> str:
    """What `problem_with` says. That nothing is wrong is remembered in the user's cache: transformers takes seconds."""
    known = cache_folder() / "architectures" / _key(architecture, sizes)
    if known.is_file():
        return ""
    if problem := problem_with(architecture, sizes):
        return problem
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time alone
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    return ""


def _key(architecture: str, sizes: Mapping[str, Any]) -> str:
    """Another one for another question, release of transformers, or way to check."""
    code = Path(__file__).read_text(encoding="utf-8")
    asked = json.dumps([version("transformers"), code, architecture, sizes], sort_keys=True, default=repr)
    return blake2b(asked.encode(), digest_size=16).hexdigest()
