"""Text in, text out: what summarization and translation share, for encoder-decoders and for decoders alone.

An encoder-decoder reads the input and writes the output elsewhere. A decoder alone continues one sequence: a prompt
around the input, then the output, then the end token. Only the output and its end are learned. B examples, T tokens,
S output tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from apf_tasks.errors import ModelError, UnsuitableParamsError
from apf_tasks.examples import IGNORE_INDEX, Columns
from apf_tasks.family import model_inputs
from apf_tasks.params.base import PositiveInt
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from apf_tasks.models.pretrained import BaseModelInfo

FEWEST_SOURCE_TOKENS = 8
"""A prompt that leaves less room than this for the input is a mistake."""


class GenerationParams(FamilyParams):
    """Options of every family whose predictions are written text."""

    slot: ClassVar[str] = ""
    """Placeholder of the input in a prompt."""

    prompt: str | None = None
    """Text around the input, which stands in it as `{document}` or `{source}`. Empty: an instruction for a decoder,
    nothing for an encoder-decoder; a T5 may want one like `summarize: {document}`."""
    chat: Literal["auto", "never"] = "auto"
    """`auto`: the prompt is sent as a user turn, where the tokenizer of a decoder has a chat template."""
    max_new_tokens: Annotated[int, Field(ge=2)] = 64
    """Most tokens of an output, its end included; longer ones are cut. A decoder keeps this much of `model.max_tokens`
    free for it."""
    num_beams: PositiveInt = 1
    """Beams of the search for an output; 1 is greedy decoding."""
    length_penalty: float = 1.0
    """With beams: above 0 favours long outputs, below 0 short ones."""

    @model_validator(mode="after")
    def _one_slot(self) -> GenerationParams:
        if self.prompt is not None and self.prompt.count(self.slot) != 1:
            raise ValueError(f"prompt: expected {self.slot} in it, once")
        return self

    @property
    def instruction(self) -> str:
        """The prompt of a decoder where the user gives none."""
        raise NotImplementedError

    @property
    def languages(self) -> tuple[str, str] | None:
        """Language of the input and of the output, where these are different."""
        return None


def encode_rows(
    rows: pd.DataFrame,
    base: BaseModelInfo,
    label_names: Sequence[str],
    params: GenerationParams,
    columns: tuple[str, str],
) -> Columns:
    """Token columns of the inputs in the first of `columns`, and of the outputs in the second where there is one."""
    source, target = columns
    return encode(list(rows[source]), list(rows[target]) if target in rows else None, base, params)


def encode(
    texts: Sequence[str], outputs: Sequence[str] | None, base: BaseModelInfo, params: GenerationParams
) -> Columns:
    """Token columns of inputs and, where they are known, outputs. Raises ParamsError where a prompt leaves no room."""
    if base.is_encoder_decoder:
        return _encode_apart(texts, outputs, base, params)
    return _encode_joined(texts, outputs, base, params)


def _encode_apart(
    texts: Sequence[str], outputs: Sequence[str] | None, base: BaseModelInfo, params: GenerationParams
) -> Columns:
    """For an encoder-decoder: `input_ids` are the input, `labels` the output, each with its own special tokens."""
    from apf_tasks.models.config import positions

    room = positions(base.config)
    if room is not None and params.max_new_tokens > room:
        do = "Write family.max_new_tokens: a smaller number."
        raise UnsuitableParamsError(
            "family.max_new_tokens", f"at most {room}, the positions", str(params.max_new_tokens), do
        )
    before, _, after = (params.prompt or params.slot).partition(params.slot)
    if after:
        do = f"End it with {params.slot}."
        raise UnsuitableParamsError(
            "family.prompt", "for an encoder-decoder, text before the input only", repr(after), do
        )
    set_languages(base, params.languages)
    ids, cut = _whole(base, base.max_tokens, text=[before + text for text in texts])
    if outputs is None:
        return {"input_ids": ids, "labels": [[IGNORE_INDEX]] * len(ids), "truncated": cut}
    labels, cut_outputs = _whole(base, params.max_new_tokens, text_target=list(outputs))
    end = end_tokens(base)[0]
    for i, label in enumerate(labels):
        if end not in label[-2:]:  # the very last one may be a language token
            labels[i] = [*label[: params.max_new_tokens - 1], end]
    return {"input_ids": ids, "labels": labels, "truncated": [a or b for a, b in zip(cut, cut_outputs, strict=True)]}


def _whole(base: BaseModelInfo, most: int, **texts: list[str]) -> tuple[list[list[int]], list[bool]]:
    """Token ids with special tokens, at most `most`, and which texts had more."""
    ids = base.tokenizer(**texts, truncation=False, verbose=False)["input_ids"]
    cut = [len(row) > most for row in ids]
    if any(cut):
        ids = base.tokenizer(**texts, truncation=True, max_length=most)["input_ids"]
    return ids, cut


def _encode_joined(
    texts: Sequence[str], outputs: Sequence[str] | None, base: BaseModelInfo, params: GenerationParams
) -> Columns:
    """For a decoder: `input_ids` are prompt, output and end; `prompt` is the length of the first.

    An input is cut so that an output of `max_new_tokens` fits behind it, whatever the output of the row is: a prompt
    must not tell how long the answer is.
    """
    before, after = prompt_tokens(base.tokenizer, params)
    most = base.max_tokens - len(before) - len(after) - params.max_new_tokens
    if most < FEWEST_SOURCE_TOKENS:
        needed = base.max_tokens + FEWEST_SOURCE_TOKENS - most
        do = f"Write model.max_tokens: {needed} or more, or a smaller family.max_new_tokens."
        parts = f"{len(before) + len(after)} of the prompt and {params.max_new_tokens} of the output"
        raise UnsuitableParamsError("model.max_tokens", f"room for input besides {parts}", str(base.max_tokens), do)
    columns: Columns = {"input_ids": [], "labels": [], "prompt": [], "truncated": []}
    sources = _plain(base.tokenizer, texts)
    answers = _plain(base.tokenizer, outputs) if outputs is not None else [None] * len(sources)
    end = end_tokens(base)[0]
    for source, answer in zip(sources, answers, strict=True):
        asked = [*before, *source[:most], *after]
        said = [] if answer is None else [*answer[: params.max_new_tokens - 1], end]
        columns["input_ids"].append(asked + said)
        columns["labels"].append([IGNORE_INDEX] * len(asked) + said)
        columns["prompt"].append([len(asked)])
        columns["truncated"].append(len(source) > most or len(answer or []) >= params.max_new_tokens)
    return columns


def _plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids without special tokens. (A tokenizer may not take an empty list.)"""
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return ids


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, params: GenerationParams) -> tuple[list[int], list[int]]:
    """What a decoder reads before and after the input. Raises ModelError when the chat template drops the input."""
    wording = params.prompt or params.instruction
    chats = params.chat == "auto" and bool(tokenizer.chat_template)
    if chats:
        # what templates would fill in otherwise: the day of the run, and room to think aloud
        settings: dict[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False}
        said = [{"role": "user", "content": wording.strip()}]
        wording = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, **settings))
    if wording.count(params.slot) != 1:
        raise ModelError("chat template", "the user's words, once", repr(wording), "Write family.chat: never.")
    before, after = (_plain(tokenizer, [part])[0] for part in wording.split(params.slot))
    start = tokenizer.bos_token_id
    opens = start is not None and tokenizer("a")["input_ids"][0] == start  # a chat template brings its own
    return ([start, *before] if opens and not chats else before), after


def end_tokens(base: BaseModelInfo) -> list[int]:
    """Tokens that end an output, the one that is learned first. Raises ModelError when there is none."""
    tokenizer, own = base.tokenizer, base.config.eos_token_id
    first = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    found = [first, *(own if isinstance(own, list) else [own])]
    ends = list(dict.fromkeys(token for token in found if isinstance(token, int)))
    if not ends:
        do = "Give the tokenizer an eos_token; without one a model cannot learn to stop."
        raise ModelError("the tokenizer", "a token that ends a text", "none", do)
    return ends


def set_languages(base: BaseModelInfo, languages: tuple[str, str] | None) -> dict[str, int]:
    """Tell a tokenizer with language tokens which two they are; how the output then has to begin, for generation.

    mBART-50, M2M100 and NLLB write the language first; mBART starts from it. Raises ModelError for an unknown language.
    """
    tokenizer: Any = base.tokenizer
    if languages is None or not hasattr(tokenizer, "src_lang"):
        return {}
    tokenizer.src_lang, tokenizer.tgt_lang = (_language(tokenizer, code) for code in languages)
    number = _language_numbers(tokenizer)[tokenizer.tgt_lang]
    is_first = tokenizer(text_target="a")["input_ids"][0] == number
    return {"forced_bos_token_id" if is_first else "decoder_start_token_id": number}


def _language_numbers(tokenizer: Any) -> dict[str, int]:
    """Language -> its token's id."""
    known = getattr(tokenizer, "lang_code_to_id", None)
    return known or {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}


def _language(tokenizer: Any, code: str) -> str:
    """The tokenizer's name for a language: `code` itself, or the one that adds a country to it (zh, zh_CN)."""
    known = [name for name in _language_numbers(tokenizer) if "<" not in name]
    found = [name for name in known if name == code] or [name for name in known if name.startswith(f"{code}_")]
    if len(found) != 1:
        do = "Write family.source_language and family.target_language as this model does."
        raise ModelError(f"language {code!r}", "one of " + ", ".join(sorted(known)), repr(code), do)
    return found[0]


def load_model(folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """An encoder-decoder or a decoder with its language-model head. Raises ModelError for a model that cannot write."""
    from transformers import AutoConfig, GenerationConfig

    from apf_tasks.models.pretrained import load_pretrained
    from apf_tasks.params.architectures import language_models

    config = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    own = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    if language_models().get(config.model_type, own) != own:
        do = "Choose an encoder-decoder (T5, BART, Marian) or a decoder (GPT-2, Llama, Qwen)."
        raise ModelError(f"model {model.base}", "a model that generates text", f"a {config.model_type}", do)
    loaded = load_pretrained(folder, model, own)
    encoder: Any = getattr(loaded, "encoder", None)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # of an encoder-decoder made of two BERTs: nobody asks it, so it would never learn
    # whatever the base was published with (beams, sampling, penalties) must not decide what is written here
    ids = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    known = {name: getattr(loaded.config, name, None) for name in ids}
    loaded.generation_config = GenerationConfig(**known)  # type: ignore[no-untyped-call]
    return loaded


def loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy summed over the tokens of the outputs and their ends."""
    from apf_tasks.families._language_model.head import summed_loss
    from apf_tasks.families._language_model.scoring import lm_loss

    if not model.config.is_encoder_decoder:
        return lm_loss(model, batch, shift=1)
    labels = batch["labels"]
    known = {"decoder_input_ids": _behind_a_start(model, labels), "use_cache": False}
    return summed_loss(model, model_inputs(batch) | known, labels)


def _behind_a_start(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """What the decoder is given of `labels` (B, S): each token at the place of the next."""
    own = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        return own(labels=labels)  # type: ignore[no-any-return]
    shifted = labels.masked_fill(labels == IGNORE_INDEX, model.config.pad_token_id).roll(1, dims=1)
    shifted[:, 0] = model.config.decoder_start_token_id  # M2M100, which does so when it is given labels
    return shifted
