"""Writing outputs, greedily or with beams. A row that has ended is taken out of the batch: it costs nothing more.

B rows, P prompt tokens, W written tokens.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from apf_tasks.families import Prediction
from apf_tasks.families._seq2seq import WritingParams, end_tokens, set_languages

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from apf_tasks.pretrained import Base

TOKENS_AT_ONCE = 32768
"""Most tokens that are remembered at a time, of all rows and beams: what the cache of keys and values may hold."""
ENDED_SHARE = 0.25
"""When this share of the rows has ended, the others go on without them."""

_UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿\uff00-\uffef、-〿\U00020000-\U0003ffff"
_SPACE_INSIDE = re.compile(f"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])")


def write(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], base: Base, params: WritingParams
) -> list[Prediction]:
    """The output for each row: `prediction`, and whether it was `finished` within `max_new_tokens`."""
    import torch

    ids, mask = _prompts(batch, base)
    settings, ends = _settings(model, base, params), torch.tensor(end_tokens(base), device=ids.device)
    at_once = max(1, TOKENS_AT_ONCE // ((ids.shape[1] + params.max_new_tokens) * params.num_beams))
    written: list[list[int]] = []
    for part in torch.arange(len(ids), device=ids.device).split(at_once):
        run = _Writing(model, settings, ends, base.is_encoder_decoder)
        written += run.beams(ids[part], mask[part]) if params.num_beams > 1 else run.greedy(ids[part], mask[part])
    finished = [bool(set(row) & set(ends.tolist())) for row in written]
    texts = decode(base.tokenizer, [_until_end(row, ends.tolist()) for row in written])
    return [{"prediction": text, "finished": done} for text, done in zip(texts, finished, strict=True)]
