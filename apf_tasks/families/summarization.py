"""Summarization: a short text that says what a long one says.

N rows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from apf_tasks.families._text_to_text.generation import generate
from apf_tasks.families._text_to_text.seq2seq import GenerationParams, encode_rows, load_model, loss
from apf_tasks.family import BaselineInputs, CheckedRows, Family, Prediction
from apf_tasks.words import is_unspaced

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.models.pretrained import BaseModelInfo

COLUMNS = (("document", "summary"), ("text", "summary"), ("article", "highlights"), ("source", "target"))
"""Names that data sets give to a document and its summary."""
MOST_SENTENCES = 5
CHARACTERS = range(8, 97, 8)
"""How much of the beginning of a document the baseline tries out; for Chinese in characters too."""
TRIED_ROWS = 200
"""Train rows that are enough to choose by."""
_SENTENCE_END = {
    "en": re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|[。！？।؟۔]+[”’」』）]*"),
    "zh": re.compile(r"[。！？!?…]+[”’」』）]*"),
}


class SummarizationParams(GenerationParams):
    """Options of the summarization family."""

    slot: ClassVar[str] = "{document}"

    language: Literal["en", "zh"] = "en"
    """Language of the texts. ROUGE counts stemmed words of `en` and characters of `zh`. With `en`, a reference in
    another script is counted by the words of that script, or by characters where it has no blanks (Japanese, Thai)."""
    document_key: str | None = None
    """Where a document is an object of several texts: the one to read. Empty: all of them, in their order."""
    summary_key: str | None = None
    """Where a summary is an object of several texts: the one to learn. Empty: all of them, in their order."""
    summaries: Literal["joined", "first"] = "joined"
    """How a list in place of a summary is read: `joined`: sentences of one summary; `first`: several summaries, of
    which the first is taken."""

    @property
    def instruction(self) -> str:
        """The prompt of a decoder where the user gives none."""
        if self.language == "zh":
            return "用一句话概括下文。\n\n{document}\n\n概括：\n"
        return "Summarize the text in one sentence.\n\n{document}\n\nSummary:\n"


PARAMS = SummarizationParams


def check(rows: pd.DataFrame, params: SummarizationParams) -> CheckedRows:
    """Documents and summaries as text. A usable row has both."""
    import pandas as pd

    from apf_tasks.evaluation.metrics.generation import needs_script

    document, summary = next(names for names in COLUMNS if set(names) <= set(rows.columns))
    between, first = "" if params.language == "zh" else " ", params.summaries == "first"
    documents = [_text(value, params.document_key, False, between) for value in rows[document]]
    summaries = [_text(value, params.summary_key, first, between) for value in rows[summary]]
    checked = rows.assign(document=[text for text, _ in documents], summary=[text for text, _ in summaries])
    reasons = [
        (f"document: {wrong}" if wrong else f"summary: {too}" if too else "")
        or ("no document" if not text else "no summary" if not short else "")
        for (text, wrong), (short, too) in zip(documents, summaries, strict=True)
    ]
    longer = [
        not reason and len(s) >= len(d) for reason, (d, _), (s, _) in zip(reasons, documents, summaries, strict=True)
    ]
    several = [first and isinstance(value, list) and len(value) > 1 for value in rows[summary]]
    notes = {
        "summaries that are not shorter than their document": sum(longer),
        "rows of which only the first of several summaries is used": sum(several),
        "summaries in other scripts than Latin: ROUGE counts their words, or characters where there are no blanks": sum(
            params.language == "en" and not reason and needs_script(text)
            for reason, (text, _) in zip(reasons, summaries, strict=True)
        ),
    }
    return CheckedRows(checked, pd.Series(reasons, index=rows.index, dtype=object), notes)


def _text(value: Any, key: str | None, first: bool, between: str) -> tuple[str, str]:
    """(text, "" or what is wrong) of a text, a list of texts, or an object of either."""
    if value is None or isinstance(value, str):
        return (value or "").strip(), ""
    if isinstance(value, dict) and key is not None:
        if key not in value:
            return "", f"no {key!r} among {', '.join(map(str, value)) or 'nothing'}"
        return _text(value[key], None, first, between)
    if not isinstance(value, (dict, list)):
        return "", "not a text"
    parts = [_text(inner, None, False, between) for inner in (value.values() if isinstance(value, dict) else value)]
    texts = [text for text, _ in parts if text]
    return between.join(texts[:1] if first else texts), next((wrong for _, wrong in parts if wrong), "")


def predict(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    base: BaseModelInfo,
    label_names: Sequence[str],
    params: SummarizationParams,
) -> list[Prediction]:
    """A summary for each document, and whether it was `finished` within `max_new_tokens`."""
    written = generate(model, batch, base, label_names, params)
    return [found | {"prediction": found["prediction"].strip()} for found in written]


def reference(rows: pd.DataFrame) -> list[str]:
    """The summary of each row."""
    return [str(summary) for summary in rows["summary"]]


def statistics(
    references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str], params: SummarizationParams
) -> np.ndarray:
    """(N, 5): one, then the F-measures of each ROUGE."""
    from apf_tasks.evaluation.metrics.generation import rouge_statistics

    return rouge_statistics(references, predictions, params.language)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Mean ROUGE F-measures from sums (..., 5)."""
    from apf_tasks.evaluation.metrics.generation import rouge_scores

    return rouge_scores(sums)


def baselines(
    train: BaselineInputs, test: BaselineInputs, seed: int, params: SummarizationParams
) -> dict[str, Sequence[Any]]:
    """The beginning of a document, as much of it as suits the train rows best by ROUGE-L."""
    tried = train.rows.head(TRIED_ROWS)
    references = reference(tried)

    def rouge_l(lead: tuple[str, int]) -> float:
        texts = [beginning(document, *lead, params.language) for document in tried["document"]]
        return float(scores(statistics(references, texts, (), params).sum(0))["rougeL"])

    unspaced = params.language == "zh" or is_unspaced(list(tried["document"]))
    unit, count = max(_leads(unspaced), key=rouge_l)
    name = f"lead_{count}_{unit if count > 1 else unit.removesuffix('s')}"
    return {name: [beginning(document, unit, count, params.language) for document in test.rows["document"]]}


def _leads(unspaced: bool) -> Iterator[tuple[str, int]]:
    yield from (("sentences", count) for count in range(1, MOST_SENTENCES + 1))
    yield from (("characters", count) for count in CHARACTERS if unspaced)


def beginning(document: str, unit: str, count: int, language: str) -> str:
    """The first `count` sentences or characters of a document."""
    if unit == "characters":
        return document[:count]
    ends = itertools.islice(_SENTENCE_END[language].finditer(document), count - 1, count)
    return document[: next((found.end() for found in ends), len(document))]


def details(
    rows: pd.DataFrame,
    predictions: Sequence[Prediction],
    label_names: Sequence[str],
    out: Path,
    params: SummarizationParams,
) -> dict[str, Any]:
    """Length of the summaries and how much of them is copied, beside the same of the references."""
    from apf_tasks.evaluation.metrics.generation import length_and_copy

    documents, found = list(rows["document"]), [str(p["prediction"]) for p in predictions]
    return {
        "length_and_copy": {
            "predictions": length_and_copy(documents, found, params.language),
            "references": length_and_copy(documents, reference(rows), params.language),
        },
        "empty": sum(not text for text in found),
        "unfinished": sum(not p["finished"] for p in predictions),
    }


def family(params: SummarizationParams) -> Family:
    """The summarization family."""
    meanings = ("the text to summarize: text, or a list of sentences", "its summary: text, or a list of sentences")
    columns, *alternatives = (dict(zip(names, meanings, strict=True)) for names in COLUMNS)
    return Family(
        name="summarization",
        columns=columns,
        alternatives=tuple(alternatives),
        text_columns=("document",),
        tokenizer_columns=("document", "summary"),
        metrics=("rougeL", "rouge1", "rouge2", "rougeLsum"),
        check=partial(check, params=params),
        encode=partial(encode_rows, params=params, columns=("document", "summary")),
        load_model=load_model,
        loss=loss,
        predict=partial(predict, params=params),
        reference=reference,
        statistics=partial(statistics, params=params),
        scores=scores,
        baselines=partial(baselines, params=params),
        details=partial(details, params=params),
        generates=True,
        example={"document": "The ferry to the islands leaves at nine. It takes two hours and carries no cars."},
        output_columns={"prediction": "string"},
    )
