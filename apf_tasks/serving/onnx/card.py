"""README.md of an exported model: what it is, how to run it with onnxruntime alone, what its outputs mean."""

from __future__ import annotations

from collections.abc import Mapping

from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.params.family import FamilyParams
from apf_tasks.serving.onnx.replay import Replay

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""Input of the graph -> what `tokenizers` calls it."""


def onnx_card(
    model: str, replay: Replay, network: Predictor, family: FamilyParams, settings: Mapping[str, float]
) -> str:
    """The whole page."""
    base = network.base
    texts = tuple(network.family.example.values())
    asked = repr(texts[0] if len(texts) == 1 else texts[::-1] if family.name == "question_answering" else texts)
    fields = {name: FIELDS[name] for name in replay.inputs}
    return f"""# {model} as ONNX

{type(network.model).__name__}, exported by apf. {replay.rows} test rows were run through this file and the original:
outputs differ by {replay.largest_difference:.1e} at most, in {replay.shapes} shapes of a batch.

Run it in this folder with `pip install onnxruntime tokenizers`:

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({base.max_tokens})
tokenizer.enable_padding(pad_id={base.pad_id}, pad_token={base.tokenizer.convert_ids_to_tokens(base.pad_id)!r})
session = onnxruntime.InferenceSession("model.onnx")

encoded = tokenizer.encode_batch([{asked}])
fields = {fields}
inputs = {{name: np.array([getattr(row, field) for row in encoded]) for name, field in fields.items()}}
outputs = dict(zip({list(replay.outputs)}, session.run(None, inputs)))
print({{name: output.shape for name, output in outputs.items()}})
```

{_meaning(family, settings)}

`apf.json` has the labels in the order of the outputs, the settings of decisions, and what the replay found.
`transformers.exporters.ExportedModel.from_pretrained` loads this folder too.
"""


def _meaning(family: FamilyParams, settings: Mapping[str, float]) -> str:
    """What the outputs say, B examples and T tokens."""
    if family.name == "sentiment":
        return _classified(family, settings)
    return {
        "ner": "`logits` (B, T, tags): the first token of a word says its tag, the largest of them. Texts longer than "
        "the model reads are cut into windows by whoever calls it.",
        "question_answering": "`start_logits` and `end_logits` (B, T): the answer is the span of the context with the "
        "largest sum; the first token stands for no answer.",
        "masked_lm": "`logits` (B, T, vocabulary): at a mask token, the largest is the token that belongs there.",
        "causal_lm": "`logits` (B, T, vocabulary): at each token, what comes after it. There is no cache: this is for "
        "scoring texts.",
    }.get(family.name, "`apf.json` names the outputs.")


def _classified(family: FamilyParams, settings: Mapping[str, float]) -> str:
    target = getattr(family, "target", "label")
    if target == "score":
        low, high = family.score_range  # type: ignore[attr-defined]
        return f"`logits` (B, 1): the score is {low:g} + logit × {high - low:g}, the logit cut to 0 … 1."
    if target == "labels":
        threshold = settings.get("threshold", 0.5)
        return f"`logits` (B, labels): a label holds where 1 / (1 + exp(-logit)) is {threshold:g} or more."
    return "`logits` (B, labels): the largest one decides."
