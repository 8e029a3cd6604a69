"""What Trainer is given for one case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer


@dataclass(frozen=True)
class Task:
    """What a family adds to Trainer."""

    load: Callable[[], Any]
    """The model with its head."""
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    validation: Dataset
    collator: Callable[..., Any]
    predict: Callable[[Trainer, Dataset], Sequence[Any] | None]
    """(trainer, examples) -> predictions in the terms of the family, in the order of the examples' rows; None where
    the loss alone is computed."""
    settings: dict[str, Any] = field(default_factory=dict)
    """More TrainingArguments."""
    targets: bool = False
    """Whether labels are a sequence of their own, whose tokens count too."""
    generates: bool = False
