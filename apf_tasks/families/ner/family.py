"""Named entities: a type for stretches of words.

The truth is kept by words: `tokens` and one tag for each. Sub-words exist between encoding and prediction only, and
however long a row is, every word of it has a prediction.

N rows, B windows of a batch, T tokens, W words, E entity types.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apf_tasks.examples import IGNORE_INDEX, Columns
from apf_tasks.families.ner.params import NerParams
from apf_tasks.family import (
    BaselineInputs,
    CheckedRows,
    ExamplePredictions,
    Family,
    Prediction,
    Thresholds,
    model_inputs,
)
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.models.pretrained import BaseModelInfo

SHOWN_MISTAKES = 10


PARAMS = NerParams


def check(params: NerParams, rows: pd.DataFrame) -> CheckedRows:
    """Tags in BIO, BIOES, IO or parts of speech, or spans by characters, become `text`, `tokens` and `tags`."""
    from apf_tasks.families.ner.rows import check

    return check(params, rows)


def labels(rows: pd.DataFrame) -> list[list[str]]:
    """The entity types in each row."""
    return [sorted({tag[2:] for tag in tags if tag != "O"}) for tags in rows["tags"]]


def encode(params: NerParams, rows: pd.DataFrame, base: BaseModelInfo, label_names: Sequence[str]) -> Columns:
    """Windows of token ids. The first token of a word that counts in the window has `word_starts` 1 and its tag."""
    from apf_tasks.families._text_words import cut, resolved
    from apf_tasks.families.ner.decoding import tag_names
    from apf_tasks.families.ner.word_pieces import encode_words

    words = []
    for text in rows["text"].tolist():
        spaced = resolved(params.words, [text]) != "characters"
        words.append([(text[start:end], spaced) for start, end in cut(text, params.words)])
    number = {tag: i for i, tag in enumerate(tag_names(label_names))}
    tags = rows["tags"].tolist() if "tags" in rows else [["O"] * len(row) for row in words]
    targets = [[number.get(tag, IGNORE_INDEX) for tag in row] for row in tags]
    return encode_words(words, targets, base, params.stride)


def load_model(folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """The base with one output per tag for every token: O, and B and I of each type."""
    from apf_tasks.families.ner.decoding import tag_names
    from apf_tasks.models.pretrained import load_pretrained

    names = dict(enumerate(tag_names(label_names)))
    return load_pretrained(
        folder,
        model,
        "AutoModelForTokenClassification",
        num_labels=len(names),
        id2label=names,
        label2id={tag: i for i, tag in names.items()},
    )


def loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy summed over the words."""
    import torch.nn.functional as F

    logits = model(**model_inputs(batch)).logits.float()  # (B, T, 2E + 1)
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORE_INDEX, reduction="sum")


def predict(
    params: NerParams,
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    base: BaseModelInfo,
    label_names: Sequence[str],
) -> list[Prediction]:
    """The tag of each word that counts in the window."""
    from apf_tasks.families.ner.decoding import tag_names, viterbi_decode

    names = tag_names(label_names)
    logits = model(**model_inputs(batch)).logits.float().cpu().numpy()  # (B, T, 2E + 1)
    starts = batch["word_starts"].cpu().numpy() == 1  # (B, T)
    found = []
    for scores, at in zip(logits, starts, strict=True):
        words = scores[at]  # (W, 2E + 1)
        best = words.argmax(-1) if params.decoding == "argmax" else viterbi_decode(words)  # (W,)
        found.append({"prediction": [names[i] for i in best]})
    return found


def merge(
    params: NerParams, rows: pd.DataFrame, pieces: ExamplePredictions, base: BaseModelInfo, settings: Thresholds
) -> list[Prediction]:
    """The tags of a row from those of its windows, made legal, and its entities by characters."""
    from apf_tasks.evaluation.metrics.entities import repair_bio
    from apf_tasks.families._text_words import cut
    from apf_tasks.families.ner.decoding import entities_json

    found = []
    for text, parts in zip(rows["text"], pieces, strict=True):
        tags, repaired = repair_bio([tag for part in parts for tag in part["prediction"]])
        entities = entities_json(text, cut(text, params.words), tags)
        found.append({"prediction": tags, "entities": entities, "repaired_tags": repaired})
    return found


def reference(rows: pd.DataFrame) -> list[list[str]]:
    """The tags of each row."""
    return [list(tags) for tags in rows["tags"]]


def statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> np.ndarray:
    """(N, 3 * (E + 1)): per type the correct, the predicted and the reference entities of each row."""
    from apf_tasks.evaluation.metrics.entities import entity_statistics

    return entity_statistics(references, predictions, label_names)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 over all entities, and the mean F1 of the types, from summed counts."""
    from apf_tasks.evaluation.metrics.entities import entity_scores

    return entity_scores(sums)


def baselines(train: BaselineInputs, test: BaselineInputs, seed: int) -> dict[str, Sequence[Any]]:
    """The entities of train, wherever they stand in test."""
    from apf_tasks.families.ner.decoding import gazetteer

    known = list(zip(train.rows["tokens"], train.rows["tags"], strict=True))
    return {"gazetteer": gazetteer(known, test.rows["tokens"].tolist())}


def details(
    params: NerParams, rows: pd.DataFrame, predictions: Sequence[Prediction], label_names: Sequence[str], out: Path
) -> dict[str, Any]:
    """Scores by type, kinds of errors and the most frequent ones; a picture of the first two."""
    from apf_tasks.evaluation.metrics.entities import error_kinds, per_type
    from apf_tasks.families._text_words import cut
    from apf_tasks.families.ner.decoding import draw_scores, frequent_mistakes

    references, found = reference(rows), [p["prediction"] for p in predictions]
    by_type, kinds = per_type(references, found, label_names), error_kinds(references, found)
    draw_scores(by_type, kinds, out / "entities.png")
    words = [cut(text, params.words) for text in rows["text"]]
    mistakes = frequent_mistakes(rows["text"].tolist(), words, references, found, SHOWN_MISTAKES)
    repaired = sum(p["repaired_tags"] for p in predictions)
    return {"per_type": by_type, "error_kinds": kinds, **mistakes, "repaired_predicted_tags": repaired}


def family(params: NerParams) -> Family:
    """The named-entity family for these options."""
    return Family(
        name="ner",
        columns={"text": "the text", "tokens": "its words", "tags": "one tag per word"},
        alternatives=(
            {"tokens": "the words of a text", "tags": "one tag per word"},
            {"text": "the text", "spans": "its entities as [start, end, type], counted in characters"},
        ),
        optional={"compounds": "entities of several words as start, end and tag, counted in words"},
        text_columns=("text",),
        labels=labels,
        leave_label_out="name only the other types in family.entity_tags: entities of the rest are none",
        metrics=("f1", "precision", "recall", "macro_f1"),
        check=partial(check, params),
        encode=partial(encode, params),
        load_model=load_model,
        loss=loss,
        predict=partial(predict, params),
        merge=partial(merge, params),
        reference=reference,
        statistics=statistics,
        scores=scores,
        baselines=baselines,
        details=partial(details, params),
        example={"text": "Ada Lovelace was born in London in 1815."},
        output_columns={"entities": "string"},
    )
