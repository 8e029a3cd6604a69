"""Language models that read from left to right: continued pre-training on documents, and instruction tuning.

N rows, B examples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from apf_tasks.examples import IGNORE_INDEX, Columns
from apf_tasks.family import BaselineInputs, CheckedRows, ExamplePredictions, Family, Prediction, Thresholds
from apf_tasks.params.base import PositiveInt
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import PreTrainedModel

    from apf_tasks.models.pretrained import BaseModelInfo

SAMPLES = 32
"""First rows of a split that the model also answers in words: as many as registration replays."""
SHOWN_SAMPLES = 10


class CausalLMParams(FamilyParams):
    """Options of the causal_lm family."""

    mode: Literal["documents", "instructions"] = "documents"
    """`documents`: predict every token of a text. `instructions`: predict the answers in conversations."""
    systems: bool = False
    """Instructions: rows have a system message (column `system`, or the first of `messages`), and served rows too."""
    max_new_tokens: PositiveInt = 64
    """Instructions: most tokens of a generated answer; half of `model.max_tokens` at most."""


PARAMS = CausalLMParams


def check_documents(rows: pd.DataFrame) -> CheckedRows:
    """A usable row has a text with something in it."""
    from apf_tasks.families._language_model.scoring import check_text

    return check_text(rows)


def encode_documents(rows: pd.DataFrame, base: BaseModelInfo, label_names: Sequence[str]) -> Columns:
    """Windows of at most `max_tokens` tokens over the start of text, the text and the end of text.

    Each window begins with the last token of the one before it, as context alone: every token but the very first is
    predicted once. A tokenizer without a start of text gives its end (as between the documents of pre-training).
    """
    tokenizer, step = base.tokenizer, base.max_tokens - 1
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    start = end if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    columns: Columns = {"input_ids": [], "labels": [], "truncated": [], "row": []}
    encoded = tokenizer(rows["text"].tolist(), add_special_tokens=False, verbose=False)["input_ids"]
    for row, text in enumerate(encoded):
        ids = [*start, *text, *end] or [base.pad_id]
        for at in range(0, max(1, len(ids) - 1), step):
            window = ids[at : at + base.max_tokens]
            columns["input_ids"].append(window)
            columns["labels"].append([IGNORE_INDEX, *window[1:]])
            columns["truncated"].append(False)
            columns["row"].append(row)
    return columns


def encode_conversations(
    params: CausalLMParams, rows: pd.DataFrame, base: BaseModelInfo, label_names: Sequence[str]
) -> Columns:
    """Conversations whose answers are the labels. The first rows, and served ones, also bring a prompt to answer.

    `prompt` holds its token ids plus one, since a batch fills it up with 0.
    """
    from apf_tasks.families.causal_lm.chat import Chat, prompt_examples, training_examples
    from apf_tasks.families.causal_lm.conversations import answer_of, conversation

    chat = Chat.of(base)
    systems = rows["system"] if "system" in rows else [None] * len(rows)
    asked = [conversation(prompt, system) for prompt, system in zip(rows["prompt"], systems, strict=True)]
    served = "response" not in rows
    most = base.max_tokens - _most_new_tokens(params, base)
    prompts = prompt_examples(chat, asked if served else asked[:SAMPLES], most)
    columns: Columns = {"input_ids": [], "labels": [], "truncated": [], "row": [], "prompt": []}
    if served:
        found = [(row, ids, [IGNORE_INDEX] * len(ids), cut) for row, (ids, cut) in enumerate(prompts)]
    else:
        answers = [
            talk._replace(messages=[*talk.messages, answer_of(response)])
            for talk, response in zip(asked, rows["response"], strict=True)
        ]
        found = [(e.row, e.ids, e.labels, e.truncated) for e in training_examples(chat, answers, base.max_tokens)]
    for at, (row, ids, labels, truncated) in enumerate(found):
        last = at + 1 == len(found) or found[at + 1][0] != row
        columns["input_ids"].append(ids)
        columns["labels"].append(labels)
        columns["truncated"].append(truncated)
        columns["row"].append(row)
        columns["prompt"].append([i + 1 for i in prompts[row][0]] if last and row < len(prompts) else [])
    return columns


def _most_new_tokens(params: CausalLMParams, base: BaseModelInfo) -> int:
    return min(params.max_new_tokens, base.max_tokens // 2)


def load_model(folder: Path, model: ModelParams, label_names: Sequence[str]) -> PreTrainedModel:
    """The base with its language-model head. Raises ModelError for one that sees the words to come."""
    from apf_tasks.errors import ModelError
    from apf_tasks.families._language_model.scoring import is_causal
    from apf_tasks.models.pretrained import load_pretrained

    loaded = load_pretrained(folder, model, "AutoModelForCausalLM")
    if not is_causal(loaded):
        expected, found = "a decoder (causal attention)", f"{loaded.config.model_type}, which attends to all tokens"
        do = "Choose one such as gpt2, llama or qwen2, or write family: masked_lm."
        raise ModelError(f"model {model.base}", expected, found, do)
    return loaded


def loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy summed over the labels, each predicted from the tokens before it."""
    from apf_tasks.families._language_model.scoring import lm_loss

    return lm_loss(model, batch, shift=1)


def predict(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], base: BaseModelInfo, label_names: Sequence[str]
) -> list[Prediction]:
    """[nats, tokens] of the labels of every example."""
    from apf_tasks.families._language_model.scoring import token_log_likelihood

    return [{"prediction": row[:2].tolist()} for row in token_log_likelihood(model, batch, shift=1)]


def predict_conversations(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], base: BaseModelInfo, label_names: Sequence[str]
) -> list[Prediction]:
    """What `predict` gives. Model and tokenizer are then saved with where an answer ends, and with a chat template."""
    from apf_tasks.families.causal_lm.chat import Chat, stop_at

    stop_at(model, Chat.of(base).stops)
    return predict(model, batch, base, label_names)


def answer(
    params: CausalLMParams,
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    base: BaseModelInfo,
    label_names: Sequence[str],
) -> list[Prediction]:
    """What `predict_conversations` gives; a response where a prompt asks for one."""
    from apf_tasks.families.causal_lm.chat import Chat, generate_responses

    found = predict_conversations(model, batch, base, label_names)
    prompts = [[i - 1 for i in ids if i > 0] for ids in batch["prompt"].tolist()]
    asked = [at for at, ids in enumerate(prompts) if ids]
    if asked:
        written = generate_responses(
            model, Chat.of(base), [prompts[at] for at in asked], base.pad_id, _most_new_tokens(params, base)
        )
        for at, text in zip(asked, written, strict=True):
            found[at]["response"] = text
    return found


def merge(
    rows: pd.DataFrame, pieces: ExamplePredictions, base: BaseModelInfo, settings: Thresholds
) -> list[Prediction]:
    """Sums over the windows of a row; what was written for it, where anything was written."""
    from apf_tasks.families._language_model.scoring import summed_pieces

    merged = summed_pieces(pieces)
    for found, row in zip(merged, pieces, strict=True):
        found["tokens"] = int(found["prediction"][1])
        if "response" in row[-1]:
            found["response"] = row[-1]["response"]
    return merged


def reference_documents(rows: pd.DataFrame) -> list[str]:
    """The text of each row."""
    return [str(text) for text in rows["text"]]


def statistics(references: Sequence[Any], predictions: Sequence[Any], label_names: Sequence[str]) -> np.ndarray:
    """(N, 3): nats, tokens, bytes."""
    from apf_tasks.evaluation.metrics.language import language_statistics

    return language_statistics(references, predictions)


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """perplexity and bits_per_byte from summed statistics (..., 3)."""
    from apf_tasks.evaluation.metrics.language import language_scores

    return language_scores(sums)


def baselines(train: BaselineInputs, test: BaselineInputs, seed: int) -> dict[str, Sequence[Any]]:
    """Token models of the train rows, scored on the tokens that the model is scored on."""
    from apf_tasks.families._language_model.scoring import ngram_baselines

    return ngram_baselines(train, test)


def details_documents(
    rows: pd.DataFrame, predictions: Sequence[Prediction], label_names: Sequence[str], out: Path
) -> dict[str, Any]:
    """The texts that the model predicts best and worst, with their perplexity."""
    from apf_tasks.families._language_model.scoring import extremes

    return extremes(rows["text"], predictions)


def details_conversations(
    rows: pd.DataFrame, predictions: Sequence[Prediction], label_names: Sequence[str], out: Path
) -> dict[str, Any]:
    """What the model answers to the first prompts, beside the references; samples.md has the same to read."""
    from apf_tasks.families.causal_lm.conversations import answer_of, said, shown

    answered = [
        {
            "prompt": shown(prompt),
            "reference": said(answer_of(response)),
            "response": found["response"],
            "perplexity": found["perplexity"],
        }
        for prompt, response, found in zip(rows["prompt"], rows["response"], predictions, strict=True)
        if found.get("response") is not None
    ][:SHOWN_SAMPLES]
    lines = ["| prompt | reference | response | perplexity |", "|---|---|---|---|"]
    for row in answered:
        cells = [_cell(row["prompt"]), _cell(row["reference"]), _cell(row["response"]), f"{row['perplexity']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    (out / "samples.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"samples": answered}


def _cell(text: str) -> str:
    """A text in one cell of a Markdown table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def family(params: CausalLMParams) -> Family:
    """The causal_lm family in one of its modes."""
    shared: dict[str, Any] = {
        "name": "causal_lm",
        "metrics": ("perplexity", "bits_per_byte"),
        "lower_is_better": frozenset({"perplexity", "bits_per_byte"}),
        "per_token": frozenset({"perplexity"}),
        "load_model": load_model,
        "loss": loss,
        "merge": merge,
        "statistics": statistics,
        "scores": scores,
        "baselines": baselines,
        "needs_labels": True,
    }
    return _instructions(params, shared) if params.mode == "instructions" else _documents(shared)


def _documents(shared: dict[str, Any]) -> Family:
    return Family(
        columns={"text": "a text to train on"},
        alternatives=({"tokens": "the words of a text"},),
        text_columns=("text",),
        check=check_documents,
        encode=encode_documents,
        predict=predict,
        reference=reference_documents,
        details=details_documents,
        example={"text": "Homarus gammarus is a species of clawed lobster from the eastern Atlantic Ocean."},
        output_columns={"perplexity": "double", "tokens": "long"},
        **shared,
    )


def _instructions(params: CausalLMParams, shared: dict[str, Any]) -> Family:
    from apf_tasks.families.causal_lm.conversations import answers_of, check_conversations

    system = {"system": "the system message before the conversation"}
    example = dict.fromkeys(system if params.systems else (), "Answer in one sentence.")
    return Family(
        columns={"prompt": "what the user says", "response": "what the model should answer"},
        alternatives=({"messages": "a list of {role, content} or {from, value}"},),
        optional={
            **system,
            "input": "what the prompt is about",
            "history": "the turns before the prompt",
            "tools": "the tools that may be called",
        },
        text_columns=("prompt",),
        key_columns=("prompt", "response"),
        check=partial(check_conversations, params.systems),
        encode=partial(encode_conversations, params),
        predict=predict_conversations,
        answer=partial(answer, params),
        reference=answers_of,
        details=details_conversations,
        generates=True,
        tells_unused=True,
        example={"prompt": "What does the -l option of ls do?", **example},
        output_columns={"response": "string"},
        **shared,
    )
