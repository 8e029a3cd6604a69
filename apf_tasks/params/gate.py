"""The sections `gate`, `drift`, `register` and `notify`: when a version becomes the champion, and who is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from apf_tasks.params.base import Frozen, PositiveInt


class GateParams(Frozen):
    """The rules that a challenger has to pass before it becomes the champion. Both are scored on today's test rows."""

    minimum: float | None = None
    """Lowest allowed score of the metric (highest, where lower is better). Empty: none."""
    beat_champion: bool = True
    """Whether the challenger has to be reliably better than the champion; otherwise not reliably worse is enough."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the paired bootstrap that decides what is reliable."""
    label_loss: Annotated[float, Field(ge=0)] | None = None
    """Largest loss of the metric on the test rows of any one label, against the champion. Empty: not checked."""
    slice_loss: Annotated[float, Field(ge=0)] | None = None
    """Largest loss of the metric on any slice of the test rows: a quarter of them by length, or a group of
    `data.columns.group`. Empty: not checked."""
    label_rows: PositiveInt = 20
    """A label or slice with fewer test rows is not checked."""
    latency_growth: Annotated[float, Field(gt=0)] | None = None
    """Largest time per row as a multiple of the champion's, measured in turns. Empty: not measured."""
    size_growth: Annotated[float, Field(gt=0)] | None = None
    """Largest size on disk as a multiple of the champion's. Empty: not checked."""
    forgetting: Annotated[float, Field(ge=0)] | None = None
    """Largest loss of the metric on the test rows that the champion was tested on. Empty: shown, not checked."""
    general_text: str | None = None
    """Language models: a text file on which both are compared by perplexity. Empty: none."""
    perplexity_growth: Annotated[float, Field(gt=0)] | None = None
    """Largest perplexity on `general_text` as a multiple of the champion's. Empty: shown, not checked."""
    serves: bool = True
    """Whether the registered model has to give predictions through `mlflow models serve`."""
    approve: bool = False
    """Whether a person has to approve: `retrain` then ends with a challenger that passed and waits for `promote`."""


class DriftParams(Frozen):
    """When new rows differ from those that the champion was trained on."""

    psi: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index of labels, lengths or words above which rows have drifted; 0 is no difference."""
    auc: Annotated[float, Field(ge=0.5, le=1)] = 0.75
    """AUC with which a linear classifier may separate new texts from old ones; 0.5 is chance."""
    embeddings: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Energy distance of the champion's embeddings of old and new texts above which rows have drifted; 0 is none."""
    embedded_rows: Annotated[int, Field(ge=0)] = 500
    """Number of old and of new rows that are embedded; 0: none, and no distance."""
    rows: PositiveInt = 50
    """With fewer new rows drift is not measured."""
    most_rows: PositiveInt = 5000
    """Number of old and of new rows that are compared, drawn at random."""
    seed: int = 0
    """Seed of that draw, and of the classifier's folds."""


class RegisterParams(Frozen):
    """Where the chosen model goes in the MLflow registry."""

    name: str | None = None
    """Registered model name. Empty: the experiment's name."""


Event = Literal["promoted", "waiting", "refused", "failed"]


class NotifyParams(Frozen):
    """Who is notified when a retraining or a promotion ends. A notification that cannot be sent is a warning."""

    webhook: str | None = None
    """Address that a JSON document is posted to. `${NAME}` in it stands for an environment variable, read when it is
    sent, so that a secret is neither written here nor recorded."""
    block: str | None = None
    """A notification block of Prefect by its type and name, such as `slack-webhook/team`."""
    on: tuple[Event, ...] = ("promoted", "waiting", "refused", "failed")
    """Events to report: a new champion, one that waits for approval, a gate that kept the old one, a failed run."""
