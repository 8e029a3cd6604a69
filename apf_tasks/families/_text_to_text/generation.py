"""Writing outputs, greedily or with beams. A row that has ended is taken out of the batch: it costs nothing more.

B rows, P prompt tokens, W written tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from apf_tasks.families._text_to_text.seq2seq import GenerationParams, end_tokens, set_languages
from apf_tasks.family import Prediction
from apf_tasks.words import HAN_AND_KANA

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from apf_tasks.models.pretrained import BaseModelInfo

TOKENS_AT_ONCE = 32768
"""Most tokens whose keys and values are remembered at a time, over all rows and beams."""
ENDED_SHARE = 0.25
"""When this share of the rows has ended, the others go on without them."""

_UNSPACED = f"\u3001-\u303f\uff01-\uffef{HAN_AND_KANA}"
"""With the punctuation and full-width forms of these scripts."""
_BLANK_BETWEEN = re.compile(f"(?<=[{_UNSPACED}]) +(?=[{_UNSPACED}])")


def generate(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    base: BaseModelInfo,
    label_names: Sequence[str],
    params: GenerationParams,
) -> list[Prediction]:
    """The output for each row: `prediction`, and whether it `finished` within `max_new_tokens`."""
    ids, mask = _prompts(batch, base)
    settings, search = _settings(model, base, params), _beams if params.num_beams > 1 else _greedy
    at_once = max(1, TOKENS_AT_ONCE // ((ids.shape[1] + params.max_new_tokens) * params.num_beams))
    written = [
        row
        for at in range(0, len(ids), at_once)
        for row in search(model, ids[at : at + at_once], mask[at : at + at_once], settings, params.max_new_tokens)
    ]
    ends = set(settings["eos_token_id"])
    lengths = [next((at for at, token in enumerate(row) if token in ends), len(row)) for row in written]
    texts = decode(base.tokenizer, [row[:length] for row, length in zip(written, lengths, strict=True)])
    finished = [length < len(row) for row, length in zip(written, lengths, strict=True)]
    return [{"prediction": text, "finished": done} for text, done in zip(texts, finished, strict=True)]


def decode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> list[str]:
    """Token ids -> text, without the blanks that a WordPiece tokenizer puts between Chinese characters."""
    texts: list[str] = tokenizer.batch_decode(
        [list(row) for row in rows], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    probe = tokenizer("中文", add_special_tokens=False)["input_ids"]
    if " " not in str(tokenizer.decode(probe)).strip():
        return texts
    return [_BLANK_BETWEEN.sub("", text) for text in texts]


def _prompts(batch: dict[str, torch.Tensor], base: BaseModelInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of what is there before anything is written, (B, P); a decoder's are padded on the left."""
    import torch

    ids, mask = batch["input_ids"], batch["attention_mask"]
    if base.is_encoder_decoder:
        return ids, mask
    lengths = batch["prompt"]  # (B, 1); behind the prompt of a reference row stands its output
    longest = int(lengths.max())
    at = torch.arange(longest, device=ids.device) + lengths - longest  # (B, P), below 0 where there is nothing
    return ids.gather(1, at.clamp(min=0)).masked_fill(at < 0, base.pad_id), (at >= 0).long()


def _settings(model: PreTrainedModel, base: BaseModelInfo, params: GenerationParams) -> dict[str, Any]:
    """Everything that decides what is written; see `load_model` for what a base brings along."""
    config = model.config
    settings: dict[str, Any] = {
        "do_sample": False,
        "num_beams": params.num_beams,
        "use_cache": True,
        "eos_token_id": end_tokens(base),
        "pad_token_id": base.pad_id,
    }
    if params.num_beams > 1:
        settings |= {"length_penalty": params.length_penalty, "early_stopping": True}
    if base.is_encoder_decoder:
        settings["decoder_start_token_id"] = getattr(config, "decoder_start_token_id", None)
    return settings | set_languages(base, params.languages)


def _beams(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any], most: int
) -> list[list[int]]:
    """The tokens written for each row by beam search."""
    from transformers import GenerationConfig

    config = GenerationConfig(**settings, max_new_tokens=most)  # type: ignore[no-untyped-call]
    found = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    rows: list[list[int]] = found[:, start:].tolist()
    return rows


def _greedy(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any], most: int
) -> list[list[int]]:
    """The tokens written for each row, the most probable one each time.

    Goes on in stretches: each lasts until enough rows have ended, and the next one has only the others, with what is
    already known of them.
    """
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    known = _begin(model, ids, mask, settings)
    start = 1 if model.config.is_encoder_decoder else ids.shape[1]
    rows, ends = torch.arange(len(ids), device=ids.device), torch.tensor(settings["eos_token_id"], device=ids.device)
    written: list[list[int]] = [[] for _ in ids]
    length = start
    while len(rows):
        left = {"max_new_tokens": start + most - length, "return_dict_in_generate": True}
        config = GenerationConfig(**settings, **left)  # type: ignore[no-untyped-call]
        stop = StoppingCriteriaList([_enough_ended(start, ends)])
        found = model.generate(**known, generation_config=config, stopping_criteria=stop)  # type: ignore[operator]
        text, length = found.sequences, found.sequences.shape[1]  # (B, P + W)
        ended = torch.isin(text[:, start:], ends).any(1) | (length >= start + most)
        for at in ended.nonzero().squeeze(1).tolist():
            written[int(rows[at])] = text[at, start:].tolist()
        rest = (~ended).nonzero().squeeze(1)
        if len(rest):
            known = _go_on(known, text, found.cache, rest)
        rows = rows[rest]
    return written


def _enough_ended(start: int, ends: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Criterion of `generate`: stop all rows when enough of them have ended after position `start`."""
    import torch

    def stop(text: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
        share = torch.isin(text[:, start:], ends).any(1).float().mean()
        return (share >= ENDED_SHARE).expand(len(text))  # (B,)

    return stop


def _begin(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any]) -> dict[str, Any]:
    """What `generate` is given at first; an input is encoded once."""
    if not model.config.is_encoder_decoder:
        return {"input_ids": ids, "attention_mask": mask}
    from transformers.modeling_outputs import BaseModelOutput

    read = model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=read.last_hidden_state),
        "attention_mask": mask,
        "decoder_input_ids": ids.new_full((len(ids), 1), settings["decoder_start_token_id"]),
    }


def _go_on(known: dict[str, Any], text: torch.Tensor, cache: Any, rest: torch.Tensor) -> dict[str, Any]:
    """What `generate` is given to continue the rows `rest` alone."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    cache.batch_select_indices(rest)
    text, mask = text[rest], known["attention_mask"][rest]
    if "encoder_outputs" not in known:
        new = mask.new_ones(len(text), text.shape[1] - mask.shape[1])
        return {"input_ids": text, "attention_mask": torch.cat([mask, new], 1), "cache": cache}
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=known["encoder_outputs"].last_hidden_state[rest]),
        "attention_mask": mask,
        "decoder_input_ids": text,
        # without it the whole text, not its last token, would be read again
        "decoder_attention_mask": torch.ones_like(text),
        "cache": cache,
    }
