"""Models and data small enough for a test, made here: nothing is downloaded and nothing is mocked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

GOOD = ["warm", "brave", "funny", "tender", "bright", "honest", "lively", "graceful"]
BAD = ["dull", "hollow", "clumsy", "bitter", "stale", "noisy", "lazy", "shallow"]
THINGS = ["film", "story", "cast", "plot", "scene", "song", "joke", "ending", "script", "hero"]


def review_rows(count: int = 200) -> list[dict[str, str]]:
    """Reviews that differ from each other and that a small model can learn."""
    rows = []
    for i in range(count):
        words, label = (GOOD, "positive") if i % 2 == 0 else (BAD, "negative")
        j = i // 2
        first, second = words[j % 8], words[(j // 8 + j + 1) % 8]
        one, two = THINGS[j % 10], THINGS[(j // 10 + 3 * j + 1) % 10]
        tail = " ".join(THINGS[(j * k + k) % 10] for k in range(1, 2 + j % 7))
        rows.append({"text": f"a {first} {one} with a {second} {two} number {j} and {tail}", "label": label})
    return rows


def write_jsonl(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_tokenizer(folder: Path, texts: Sequence[str]) -> int:
    """A WordPiece tokenizer trained on `texts`, saved into `folder`. Returns its size."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import PreTrainedTokenizerFast

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(texts, vocab_size=400, min_frequency=1, show_progress=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(folder)
    return len(fast)


def tiny_bert(folder: Path, texts: Sequence[str] | None = None, hidden: int = 32, layers: int = 2) -> Path:
    """A BERT of a few thousand parameters with random weights, as a model folder."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    size = tiny_tokenizer(folder, texts or [row["text"] for row in review_rows()])
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


ENCODERS = ("bert", "roberta", "distilbert", "deberta-v2", "electra", "modernbert")
DECODERS = ("gpt2", "qwen2", "qwen3", "llama")
ENCODER_DECODERS = ("t5", "mt5", "bart", "marian")
TINY_SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64}


def tiny_model(
    folder: Path,
    architecture: str,
    texts: Sequence[str] | None = None,
    tokenizer: str | None = None,
    vocab_size: int = 400,
    max_tokens: int = 64,
    **sizes: object,
) -> Path:
    """A model folder of any architecture with random weights and its language-model head, made from scratch.

    `tokenizer` is wordpiece, bpe or unigram; what the architecture is usually published with when None.
    """
    from apf_tasks.models.scratch import random_model, save_base
    from apf_tasks.models.tokenizer import train_tokenizer
    from apf_tasks.params.architectures import convention
    from apf_tasks.params.model import ModelParams, TokenizerParams

    usual = {"bert": "wordpiece", "roberta": "bpe", "causal": "bpe", "t5": "unigram"}[convention(architecture)]
    kind = TokenizerParams.model_validate({"train": tokenizer or usual, "vocab_size": vocab_size})
    model = ModelParams(init="scratch", architecture=architecture, sizes={**TINY_SIZES, **sizes}, max_tokens=max_tokens)
    trained = train_tokenizer(texts or [row["text"] for row in review_rows()], kind, architecture)
    save_base(random_model(model, trained), trained, folder)
    return folder
