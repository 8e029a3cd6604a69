"""torch.compile for the layers of a model, where what is left to do repays the wait."""

from __future__ import annotations

import logging

from transformers import PreTrainedModel

from apf_tasks.evaluation.predictor import Placement
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime.sharding import layers

logger = logging.getLogger("apf")

LOOKED_AT = 10
"""Steps after which `auto` decides: by then their time is known."""
GAIN = 0.15
"""Share of a step that compiled layers are assumed to save on CUDA."""
WAIT_SECONDS = 60.0
"""Assumed for compiling; layers of one kind are compiled once."""


class Compiler:
    """Decides once in a training, and says so."""

    def __init__(self, model: PreTrainedModel, runtime: RuntimeParams, place: Placement) -> None:
        self._model = model
        self._how: str = runtime.compile
        if self._how == "auto" and place.device.type != "cuda":
            self._how = "off"  # on the CPU it gains nothing: benchmarks/README.md
        self._seconds: list[float] = []
        if self._how == "on":
            self._compile()

    def observe_step(self, seconds: float, left: int) -> None:
        """After a step of so many seconds, with so many left."""
        if self._how == "compiled":
            logger.info("           compiled layers: the first step took %.0f s", seconds)
            self._how = "off"
        if self._how != "auto":
            return
        self._seconds.append(seconds)
        if len(self._seconds) < LOOKED_AT:
            return
        usual = sorted(self._seconds)[LOOKED_AT // 2]
        self._how = "off"
        if is_worth_compiling(usual, left):
            self._compile()

    def _compile(self) -> None:
        for layer in layers(self._model):
            layer.compile(dynamic=True)  # lengths differ from batch to batch
        self._how = "compiled"


def is_worth_compiling(seconds: float, left: int) -> bool:
    """Whether so many steps of so many seconds repay the compilation."""
    return GAIN * seconds * left > WAIT_SECONDS
