"""Which learning rates are usual for which models, from the papers that say so."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import TrainParams

FAR = 3
"""A rate this many times outside the usual range is far outside it: ranges have no sharp ends."""


class LearningRateRange(NamedTuple):
    """Learning rates with AdamW that papers and their code use."""

    models: str
    low: float
    high: float
    source: str


USUAL = {
    "scratch": LearningRateRange(
        *("models trained from scratch", 1e-4, 3e-3),
        "Devlin et al. 2019, A.2: 1e-4; Brown et al. 2020, table 2.1: 6e-5 to 6e-4 from 175 B to 125 M parameters; "
        "Geiping & Goldstein 2023: 1e-3",
    ),
    "t5": LearningRateRange(
        *("T5", 1e-4, 3e-4), "transformers' page on T5; Raffel et al. 2020 have 1e-3, but with Adafactor"
    ),
    "encoder-decoder": LearningRateRange(
        *("encoder-decoders", 1e-5, 1e-4), "BART: 3e-5 in fairseq's examples; Liu et al. 2020, mBART: 3e-5"
    ),
    "decoder": LearningRateRange(
        *("decoders", 1e-5, 2e-4), "Radford et al. 2018, 4.1: 6.25e-5; Touvron et al. 2023, Llama 2, 3.1: 2e-5"
    ),
    "encoder": LearningRateRange(
        *("encoders", 1e-5, 1e-4), "Devlin et al. 2019, A.3: 2e-5 to 5e-5; Turc et al. 2019, small ones: up to 3e-4"
    ),
}
"""Kind of model -> what is usual. Where a paper gives single values, the range leaves room around them."""

T5_TYPES = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
BY_FAMILY = {
    **dict.fromkeys(("sentiment", "ner", "question_answering", "masked_lm"), "encoder"),
    "causal_lm": "decoder",
}
"""The kind of model that a family is usually trained with, for a base whose configuration is not at hand."""


def kind_of(model: ModelParams, folder: Path | None, family: str) -> str | None:
    """The row of USUAL for a model, from its config.json where that is at hand; None when nobody can say."""
    if model.init == "scratch":
        return "scratch"
    config = _config(folder)
    if not config:
        return BY_FAMILY.get(family)
    if config.get("model_type") in T5_TYPES:
        return "t5"
    if config.get("is_encoder_decoder") or config.get("model_type") in (
        "bart",
        "mbart",
        "marian",
        "pegasus",
        "m2m_100",
    ):
        return "encoder-decoder"
    heads = " ".join(config.get("architectures") or ())
    if "CausalLM" in heads or "LMHead" in heads or config.get("model_type") == "gpt2":
        return "decoder"
    return "encoder" if heads else BY_FAMILY.get(family)


def check_learning_rates(kind: str | None, sections: Iterable[TrainParams]) -> list[str]:
    """A sentence for every learning rate far outside what is usual for this kind of model."""
    if kind is None:
        return []
    usual = USUAL[kind]
    rates = dict.fromkeys(section.learning_rate for section in sections if section.optimizer.name == "adamw")
    return [
        f"train.learning_rate {rate:g} is far {'above' if rate > usual.high else 'below'} what is usual for"
        f" {usual.models}, {usual.low:g} to {usual.high:g} ({usual.source})."
        for rate in rates
        if not usual.low / FAR <= rate <= usual.high * FAR
    ]


def _config(folder: Path | None) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
