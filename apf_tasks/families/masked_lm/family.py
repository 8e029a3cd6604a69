"""Masked language models: pre-training on the masked words of a text.

N rows, B examples, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from apf_tasks.examples import Columns
from apf_tasks.family import BaselineInputs, CheckedRows, ExamplePredictions, Family, Prediction, Thresholds
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.models.pretrained import BaseModelInfo


class MaskedLMParams(FamilyParams):
    """Options of the masked_lm family."""

    words: Literal["auto", "whitespace", "jieba"] = "auto"
    """The unit of masking. `whitespace`: words and punctuation as the tokenizer separates them; `jieba`: Chinese
    words by jieba; `auto`: jieba for texts in a script without spaces."""
    mask_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the tokens that are masked: 80 % of them become the mask token, 10 % a random token, 10 % stay
    unchanged."""


PARAMS = MaskedLMParams


def check(rows: pd.DataFrame) -> CheckedRows:
    """A usable row has a text with something in it."""
    from apf_tasks.families._language_model.scoring import check_text

    return check_text(rows)


def encode(params: MaskedLMParams, rows: pd.DataFrame, base: BaseModelInfo, label_names: Sequence[str]) -> Columns:
    """Windows of the text. `labels` are all tokens that can be masked; those that are masked are drawn every epoch."""
    from apf_tasks.families.masked_lm.masking import encode_windows

    return encode_windows(rows["text"].tolist(), base, params.words)


def mask_tokens(params: MaskedLMParams, columns: Columns, base: BaseModelInfo, seeds: Sequence[int]) -> Columns:
    """The examples with words masked; without seeds always the same ones."""
    from apf_tasks.families.masked_lm.masking import mask_words

    return mask_words(params.mask_fraction, columns, base, seeds)


def load_model(folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """The base with its masked-language-model head; a base without one gets a new one over its own embeddings."""
    from apf_tasks.models.pretrained import load_pretrained

    return load_pretrained(folder, model, "AutoModelForMaskedLM")


def loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy summed over the masked tokens."""
    from apf_tasks.families._language_model.scoring import lm_loss

    return lm_loss(model, batch, shift=0)


def predict(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], base: BaseModelInfo, label_names: Sequence[str]
) -> list[Prediction]:
    """[nats, masked tokens, correctly predicted ones] of every example, and the fillers of the text's mask tokens."""
    from apf_tasks.examples import IGNORE_INDEX
    from apf_tasks.families._language_model.scoring import best_tokens, token_log_likelihood

    own = (batch["input_ids"] == base.tokenizer.mask_token_id) & (batch["labels"] == IGNORE_INDEX)  # (B, T)
    fills = best_tokens(model, batch, own)
    return [
        {"prediction": row.tolist(), "fills": ids}
        for row, ids in zip(token_log_likelihood(model, batch, shift=0), fills, strict=True)
    ]


def merge(
    rows: pd.DataFrame, pieces: ExamplePredictions, base: BaseModelInfo, settings: Thresholds
) -> list[Prediction]:
    """Sums over the windows of a row; the text with its mask tokens filled in."""
    from apf_tasks.families._language_model.scoring import summed_pieces

    merged = summed_pieces(pieces)
    for found, text, row in zip(merged, rows["text"], pieces, strict=True):
        found["pseudo_perplexity"] = found.pop("perplexity")
        words = (str(base.tokenizer.decode([i])).strip() for piece in row for i in piece["fills"])
        found["filled"] = _filled(str(text), str(base.tokenizer.mask_token), words)
    return merged


def _filled(text: str, mask: str, words: Iterator[str]) -> str:
    """The text with a word for each mask; a part of a word (`##s`) joins what stands before it."""

    def fill(match: re.Match[str]) -> str:
        word = next(words, match[2])
        return word.removeprefix("##") if word.startswith("##") else match[1] + word

    return re.sub(rf"(\s*)({re.escape(mask)})", fill, text)


def reference(rows: pd.DataFrame) -> list[str]:
    """The text of each row."""
    return [str(text) for text in rows["text"]]


def statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> np.ndarray:
    """(N, 3): nats, masked tokens, correctly predicted ones."""
    import numpy as np

    return np.asarray(predictions, dtype=np.float64).reshape(-1, 3)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """pseudo_perplexity and masked_accuracy from summed statistics (..., 3).

    exp(nats / masked tokens) with 15 % of the tokens masked at a time. (The pseudo-perplexity of Salazar et al. 2020,
    section 2, hides every token once, alone: it is lower, and costs T forward passes.)
    """
    import numpy as np

    nats, tokens, right = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    some = tokens > 0
    mean = np.divide(nats, tokens, out=np.full_like(nats, np.nan), where=some)
    with np.errstate(over="ignore"):
        perplexity = np.exp(mean)
    accuracy = np.divide(right, tokens, out=np.full_like(nats, np.nan), where=some)
    return {"pseudo_perplexity": perplexity, "masked_accuracy": accuracy}


def baselines(
    params: MaskedLMParams, train: BaselineInputs, test: BaselineInputs, seed: int
) -> dict[str, Sequence[Any]]:
    """The frequencies of the train tokens, evaluated on the same masked tokens of the test rows."""
    import numpy as np

    from apf_tasks.evaluation.metrics.language import unigram_nll
    from apf_tasks.families._language_model.scoring import arrays
    from apf_tasks.families.masked_lm.masking import fixed_targets

    ids, words = (np.concatenate(arrays(train.examples, name)) for name in ("input_ids", "words"))
    known: Any = ids[words > 0]
    targets = fixed_targets(params.mask_fraction, test.examples.take(np.arange(len(test.examples))))
    size = 1 + max(int(known.max()), max((i for row in targets for i in row), default=0))
    nats = unigram_nll([known], targets, size, context_tokens=0)
    best = int(np.bincount(known).argmax())
    sums = np.zeros((len(test.rows), 3))
    np.add.at(sums, test.examples.rows, [[*pair, row.count(best)] for pair, row in zip(nats, targets, strict=True)])
    return {"unigram": sums.tolist()}


def details(
    rows: pd.DataFrame, predictions: Sequence[Prediction], label_names: Sequence[str], out: Path
) -> dict[str, Any]:
    """The texts whose masked words the model predicts best and worst."""
    from apf_tasks.families._language_model.scoring import extremes

    return extremes(rows["text"], [{**p, "perplexity": p["pseudo_perplexity"]} for p in predictions])


def family(params: MaskedLMParams) -> Family:
    """The masked_lm family."""
    return Family(
        name="masked_lm",
        columns={"text": "a text to mask words of"},
        alternatives=({"tokens": "the words of a text"},),
        text_columns=("text",),
        metrics=("pseudo_perplexity", "masked_accuracy"),
        lower_is_better=frozenset({"pseudo_perplexity"}),
        per_token=frozenset({"pseudo_perplexity", "masked_accuracy"}),
        check=check,
        encode=partial(encode, params),
        mask=partial(mask_tokens, params),
        load_model=load_model,
        loss=loss,
        predict=predict,
        merge=merge,
        reference=reference,
        statistics=statistics,
        scores=scores,
        baselines=partial(baselines, params),
        details=details,
        needs_labels=True,
        example={"text": "Paris is the capital of France."},
        output_columns={"filled": "string", "pseudo_perplexity": "double"},
    )
