"""An exported model beside the original, on real rows: the same outputs, the same answers, and how long each takes.

B examples of a batch, T tokens, K outputs.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from apf_tasks.data.batching import collate, micro_batches
from apf_tasks.errors import ExportError
from apf_tasks.evaluation.predictor import EVALUATION_TOKENS, Predictor, predict_rows
from apf_tasks.examples import Examples, token_table
from apf_tasks.family import Thresholds, model_inputs
from apf_tasks.params.base import Frozen

Batch = Mapping[str, torch.Tensor]

TOLERANCE = 1e-3
"""Largest difference of an output that is rounding. Two logits that move by d change a probability by d / 2 at most, so
probabilities stay within what registration allows. Sums of float32 in another order differ by far less, and a wrong
graph (a mask left out, a length frozen) by far more: docs/SERVICE.md has both."""
TIMED_EXAMPLES = 64
TIMED_REPEATS = 3
POSITIONS = ("start_logits", "end_logits")
"""Outputs (B, T) that say which token it is; others say what a text or a token is."""
PADDING = 7
"""Positions that a row is padded beyond its own length, to see that padding changes nothing."""


class Replay(Frozen):
    """What was compared, and how alike it was."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """Of the graph."""
    rows: int
    alike: int
    """Rows with the same answer as the original gives; numbers within the tolerance."""
    shapes: int
    """Different (batch, length) among the batches."""
    largest_difference: float
    """Of any output at any token that is not padding."""
    largest_output: float
    """Magnitude of the outputs, for comparison."""
    decisions: int
    """Places where the largest of several outputs decides."""
    same_decisions: int
    seconds_original: float
    """Per row, in the forward pass."""
    seconds_exported: float

    @property
    def time_ratio(self) -> float:
        """Time of the export as a multiple of the original's."""
        return self.seconds_exported / self.seconds_original


class OnnxForward:
    """`model.onnx` on the CPU, called as a transformers model is."""

    def __init__(self, path: Path) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()  # as many as the original has
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(str(spec.name) for spec in self.session.get_inputs())
        self.outputs = tuple(str(spec.name) for spec in self.session.get_outputs())

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Output name -> tensor."""
        fed = {name: batch[name].numpy() for name in self.inputs}
        return {name: torch.from_numpy(a) for name, a in zip(self.outputs, self.session.run(None, fed), strict=True)}


class ShadowModel(torch.nn.Module):
    """Stands where the model stands: runs the export, and remembers how far the original is from it."""

    def __init__(self, original: torch.nn.Module, exported: OnnxForward) -> None:
        super().__init__()
        self.original, self.exported, self.config = original, exported, original.config
        self.shapes: set[tuple[int, ...]] = set()
        self.difference = self.magnitude = 0.0
        self.decisions = self.same = 0

    def get_output_embeddings(self) -> None:
        """None to be seen: only whole forward passes."""
        return None

    @torch.inference_mode()
    def forward(self, **inputs: Any) -> Any:
        """The outputs of the export."""
        expected, found = self.original(**inputs), self.exported(inputs)
        self.shapes.add(tuple(inputs["input_ids"].shape))
        for name, tensor in found.items():
            self._compare(name, expected[name].float(), tensor.float(), inputs["attention_mask"] == 1)
        return SimpleNamespace(**found)

    def _compare(self, name: str, expected: torch.Tensor, found: torch.Tensor, real: torch.Tensor) -> None:
        """(B, K), (B, T) or (B, T, K) each; `real` (B, T) is False where there is padding."""
        if expected.shape != found.shape:
            self.difference = math.inf
            return
        if expected.ndim == 3:
            expected, found = expected[real], found[real]  # (P, K)
        elif name in POSITIONS:
            expected, found = (side.masked_fill(~real, torch.finfo(side.dtype).min) for side in (expected, found))
        gap = torch.nan_to_num((expected - found).abs(), nan=math.inf)
        self.difference = max(self.difference, float(gap.max()))
        seen = expected[expected > torch.finfo(expected.dtype).min]
        self.magnitude = max(self.magnitude, float(seen.abs().max()))
        if expected.shape[-1] > 1:
            self.decisions += expected[..., 0].numel()
            self.same += int((expected.argmax(-1) == found.argmax(-1)).sum())


def replay(network: Predictor, settings: Thresholds, path: Path, rows: pd.DataFrame) -> Replay:
    """Run both on `rows`, which have the columns of a served row. Raises ExportError when outputs differ."""
    columns = network.family.encode(rows, network.base, network.label_names)
    examples = Examples(token_table(columns))
    beside = ShadowModel(network.model, OnnxForward(path))
    original = predict_rows(network, examples, rows, settings)
    standing: Any = dataclasses.replace(network, model=beside)  # type: ignore[arg-type]
    exported = predict_rows(standing, examples, rows, settings)
    for batch in _unusual(network, examples):
        beside(**batch)
    if not beside.difference <= TOLERANCE:
        raise ExportError(
            f"{path.name} against the original",
            f"outputs that differ by {TOLERANCE:g} at most",
            f"{beside.difference:.2g} (outputs up to {beside.magnitude:.2g})",
            "The export is discarded. Serve the model with `apf serve`, and please report the architecture.",
        )
    seconds = _side_by_side(network, beside.exported, examples)
    return Replay(
        inputs=beside.exported.inputs,
        outputs=beside.exported.outputs,
        rows=len(rows),
        alike=sum(_alike(a["prediction"], b["prediction"]) for a, b in zip(original, exported, strict=True)),
        shapes=len(beside.shapes),
        largest_difference=beside.difference,
        largest_output=beside.magnitude,
        decisions=beside.decisions,
        same_decisions=beside.same,
        seconds_original=seconds[0],
        seconds_exported=seconds[1],
    )


def batch_of(network: Predictor, examples: Examples, indices: np.ndarray) -> dict[str, torch.Tensor]:
    """What the model reads of some examples, (B, T) each."""
    columns = examples.take(indices)
    if network.family.mask is not None:
        columns = network.family.mask(columns, network.base, ())
    return model_inputs(collate(columns, network.base.pad_id, network.place.device))


def _unusual(network: Predictor, examples: Examples) -> Iterator[dict[str, torch.Tensor]]:
    """Shapes that a replay need not have: the shortest row alone, that row padded, a few rows cut to two tokens."""
    order = np.argsort(examples.lengths, kind="stable")
    shortest = batch_of(network, examples, order[:1])
    yield shortest
    length = shortest["input_ids"].shape[1]
    room = min(PADDING, network.base.max_tokens - length)
    fills = {"input_ids": network.base.pad_id}
    yield {n: torch.nn.functional.pad(t, (0, room), value=fills.get(n, 0)) for n, t in shortest.items()}
    few = batch_of(network, examples, order[-5:])
    yield {name: tensor[:, :2].contiguous() for name, tensor in few.items()}


def _alike(one: Any, other: Any) -> bool:
    """The same label, labels, tags or text; numbers may differ by rounding of their own size."""
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(one, list) and one and isinstance(one[0], float):
        return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE))
    return bool(one == other)


def _side_by_side(network: Predictor, exported: OnnxForward, examples: Examples) -> tuple[float, float]:
    """Seconds per row of both, in turns on the same batches; the best round, to leave a busy moment out."""
    chosen = np.arange(min(TIMED_EXAMPLES, len(examples)))
    cuts = micro_batches(chosen, examples.sizes, EVALUATION_TOKENS["cpu"])
    batches = [batch_of(network, examples, cut) for cut in cuts]
    rows = len(set(examples.rows[chosen].tolist()))
    rounds = []
    with torch.inference_mode():
        for _ in range(1 + TIMED_REPEATS):
            times = [time.perf_counter()]
            for run in (lambda batch: network.model(**batch), exported):
                for batch in batches:
                    run(batch)
                times.append(time.perf_counter())
            rounds.append((times[1] - times[0], times[2] - times[1]))
    first, second = (min(side) / rows for side in zip(*rounds[1:], strict=True))  # the first round warms up
    return first, second
