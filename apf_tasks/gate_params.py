"""When a new model may take the champion's place. Part of `params.py`, which is where to import it from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from apf_tasks.frozen import Frozen, PositiveInt


class GateParams(Frozen):
    """The rules that a challenger has to pass before it becomes the champion. Both are scored on today's test rows."""

    minimum: float | None = None
    """Score of the metric that is needed at least (at most, where less is better). Empty: none."""
    beat_champion: bool = True
    """Whether the challenger has to be reliably better than the champion; otherwise not reliably worse is enough."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the paired bootstrap that decides what is reliable."""
    label_loss: Annotated[float, Field(ge=0)] | None = None
    """Largest loss of the metric on the test rows of any one label, against the champion. Empty: not looked at."""
    label_rows: PositiveInt = 20
    """A label with fewer test rows is not looked at."""
    latency_growth: Annotated[float, Field(gt=0)] | None = None
    """Largest time per row as a multiple of the champion's, measured side by side. Empty: not measured."""
    size_growth: Annotated[float, Field(gt=0)] | None = None
    """Largest size on disk as a multiple of the champion's. Empty: not looked at."""
    serves: bool = True
    """Whether the registered model has to answer from `mlflow models serve`."""
