"""What language models share: the loss over the labelled positions alone, and what an n-gram model says about them.

B examples, T tokens, P labelled positions, H hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apf_tasks.examples import IGNORE_INDEX
from apf_tasks.families._language_model.head import Head, summed_loss, with_states
from apf_tasks.family import BaselineInputs, CheckedRows, ExamplePredictions, Prediction, model_inputs

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.examples import Examples

    Batch = dict[str, torch.Tensor]

NGRAM_ORDER = 3
SHOWN_TEXTS = 5
SHOWN_CHARACTERS = 200


def check_text(rows: pd.DataFrame) -> CheckedRows:
    """Rows with a `text`, which `tokens` are made one of; a usable one has something in it.

    A list of words or sentences is a text too.
    """
    import pandas as pd

    from apf_tasks.families._text_words import joined

    def plain(value: Any) -> Any:
        listed = isinstance(value, list) and all(isinstance(part, str) for part in value)
        return joined(value, "auto")[0] or None if listed else value

    found = [plain(value) for value in rows["text" if "text" in rows else "tokens"]]
    reasons = ["empty text" if v is None else "" if isinstance(v, str) else "the text is not a string" for v in found]
    texts = pd.Series(found, index=rows.index, dtype=object)
    return CheckedRows(rows.assign(text=texts), pd.Series(reasons, index=rows.index, dtype=object))


def inputs_of(batch: Batch, causal: bool) -> dict[str, Any]:
    """What the model's forward takes. Restarting positions are seen only by a model without a cache."""
    return {**model_inputs(batch), **({"use_cache": False} if causal else {})}


def lm_loss(model: PreTrainedModel, batch: Batch, shift: int) -> torch.Tensor:
    """Cross-entropy summed over the labelled positions, a scalar with gradient.

    `shift`: how many positions before its label a hidden state stands: 1 for a causal model, 0 for a masked one.
    """
    return summed_loss(model, inputs_of(batch, shift == 1), batch["labels"][:, shift:])


def token_log_likelihood(model: PreTrainedModel, batch: Batch, shift: int) -> NDArray[np.float64]:
    """Per example its negative log-likelihood in nats, its labelled positions, and how often the most probable token is
    the label, (B, 3).
    """
    import torch
    import torch.nn.functional as F

    labels = batch["labels"][:, shift:]
    at = labels != IGNORE_INDEX

    def found(states: torch.Tensor, head: Head) -> list[torch.Tensor]:
        per_piece = []
        for part, targets in zip(head.split(states), head.split(labels[at]), strict=True):
            logits = head(part).float()  # (p, V)
            nats = F.cross_entropy(logits, targets, reduction="none").double()
            per_piece.append(torch.stack([nats, torch.ones_like(nats), (logits.argmax(-1) == targets).double()], dim=1))
        return per_piece

    sums = np.zeros((len(labels), 3))
    if at.any() and (pieces := with_states(model, inputs_of(batch, shift == 1), at, found)):
        np.add.at(sums, at.nonzero()[:, 0].cpu().numpy(), torch.cat(pieces).cpu().numpy())
    return sums


def best_tokens(model: PreTrainedModel, batch: Batch, at: torch.Tensor) -> list[list[int]]:
    """Per example the most probable token at each position of `at` (B, T), in their order."""

    def best(states: torch.Tensor, head: Head) -> list[int]:
        return [i for part in head.split(states) for i in head(part).argmax(-1).tolist()]

    tokens = iter(with_states(model, inputs_of(batch, causal=False), at, best) if at.any() else [])
    return [[next(tokens) for _ in range(count)] for count in at.sum(1).tolist()]


def is_causal(model: PreTrainedModel) -> bool:
    """Whether the model reads from left to right: another last token changes nothing that it says before."""
    import torch

    ids = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=model.device)
    training = model.training
    model.train(False)
    with torch.no_grad():
        first, second = model(input_ids=ids).logits[:, :-1]
    model.train(training)
    return torch.allclose(first, second, rtol=1e-4, atol=1e-5)


def summed_pieces(pieces: ExamplePredictions) -> list[Prediction]:
    """Per row the sum of what its examples have under `prediction`, and exp(nats per token) of it as `perplexity`."""
    found: list[Prediction] = []
    for row in pieces:
        total = [float(x) for x in np.sum([piece["prediction"] for piece in row], axis=0)]
        perplexity = math.exp(min(700.0, total[0] / total[1])) if total[1] else math.nan
        found.append({"prediction": total, "perplexity": perplexity})
    return found


def extremes(texts: Iterable[str], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """`easiest` and `hardest`: the texts of lowest and highest perplexity, shortened."""
    scored = [
        {"perplexity": found["perplexity"], "tokens": int(found["prediction"][1]), "text": text[:SHOWN_CHARACTERS]}
        for text, found in zip(texts, predictions, strict=True)
    ]
    scored = sorted((row for row in scored if row["tokens"]), key=lambda row: float(row["perplexity"]))
    return {"easiest": scored[:SHOWN_TEXTS], "hardest": scored[::-1][:SHOWN_TEXTS]}


def arrays(examples: Examples, name: str) -> list[NDArray[np.int64]]:
    """A token column as one array per example, without a copy as Python numbers."""
    column = examples.table.column(name).combine_chunks()
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return np.split(values.astype(np.int64, copy=False)[offsets[0] : offsets[-1]], offsets[1:-1] - offsets[0])


def ngram_baselines(train: BaselineInputs, test: BaselineInputs) -> dict[str, Sequence[Any]]:
    """[nats, tokens] of each test row under a unigram and a trigram model of the labelled tokens of the train rows."""
    from apf_tasks.evaluation.metrics.language import ngram_nll

    known, asked = _spans(train.examples), _spans(test.examples)
    size = 1 + max(int(tokens.max()) for tokens, _, _ in (*known, *asked))
    found: dict[str, Sequence[Any]] = {}
    for name, order in (("unigram", 1), ("trigram", NGRAM_ORDER)):
        learned: list[Any] = [tokens[max(0, context - order + 1) :] for tokens, context, _ in known]
        foreseen: list[Any] = [tokens for tokens, _, _ in asked]
        nats = ngram_nll(learned, foreseen, size, order, [context for _, context, _ in asked])
        sums = np.zeros((len(test.rows), 2))
        np.add.at(sums, [row for _, _, row in asked], np.asarray(nats).reshape(-1, 2))
        found[name] = sums.tolist()
    return found


def _spans(examples: Examples) -> list[tuple[NDArray[np.int64], int, int]]:
    """Every run of labelled tokens: with what an n-gram model sees before it, how many tokens that is, the row."""
    found = []
    for ids, labels, row in zip(arrays(examples, "input_ids"), arrays(examples, "labels"), examples.rows, strict=True):
        edges = np.flatnonzero(np.diff(labels != IGNORE_INDEX, prepend=False, append=False))
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            first = max(0, start - NGRAM_ORDER + 1)
            found.append((ids[first:end], int(start - first), int(row)))
    return found
