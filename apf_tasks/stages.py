"""The stages as a table: what each takes and hands on, the code and libraries its result depends on.

The functions behind are imported when they run: a plan needs neither torch nor mlflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apf_tasks.artifacts import (
    DriftReport,
    EvaluationReport,
    LearningCurve,
    RawData,
    RegisteredModel,
    Rung,
    ScratchModel,
    Selection,
    Split,
    TokenizedSplit,
    TrainedModel,
    VersionScores,
)
from apf_tasks.cache.journal import or_pending
from apf_tasks.cache.stage import stage
from apf_tasks.cache.workspace import current_workspace
from apf_tasks.inputs import EvaluationInputs, TrainingInputs
from apf_tasks.params.base import Frozen
from apf_tasks.params.data import DataParams, SplitName, SplitParams
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.gate import DriftParams
from apf_tasks.params.model import ModelParams, TokenizerParams
from apf_tasks.params.search import EvaluationParams, SelectParams
from apf_tasks.params.train import RuntimeParams

ENCODING = ("transformers", "tokenizers", "sentencepiece", "jinja2", "jieba", "numpy", "pandas", "pyarrow")
"""Distributions that turn rows into tokens."""
SCORING = ("scikit-learn", "scipy", "jieba", "sacrebleu", "rouge-score", "nltk", "numpy", "pandas", "pyarrow")
TRAINING = ("torch", *ENCODING, *SCORING, "gguf", "safetensors", "torchao")


def source_identity(data: DataParams, read_as: Frozen) -> dict[str, str]:
    """What the source holds."""
    from apf_tasks.sources.data import data_identity

    return {"content of data.source": data_identity(data)}


def _base_identity(*args: Any, **kwargs: Any) -> dict[str, str]:
    from apf_tasks.sources.models import model_identity

    model = next(a for a in (*args, *kwargs.values()) if isinstance(a, ModelParams))
    return {"content of model.base": model_identity(model)}


def _tokenizer_identity(
    split: Split, model: ModelParams, tokenizer: TokenizerParams, family: FamilyParams
) -> dict[str, str]:
    from apf_tasks.sources.models import tokenizer_identity

    return {} if tokenizer.base is None else {"content of tokenizer.base": tokenizer_identity(tokenizer)}


def registry_identity(*args: Any, **kwargs: Any) -> dict[str, str]:
    """Which registry a version is in."""
    return {"registry": current_workspace().tracking_uri or "mlruns/mlflow.db"}  # stays when the folder moves


def still_registered(handle: RegisteredModel) -> bool:
    """Whether the registry still has the version."""
    from apf_tasks.tracking import registry

    return registry.still_registered(handle)


@stage(
    libraries=["pandas", "pyarrow", "numpy", "polib", "charset-normalizer", "datasets", "jieba"],
    identity=source_identity,
    is_preparation=True,
)
def ingest(out: Path, data: DataParams, family: FamilyParams) -> RawData:
    """Rows of the source, checked and normalised."""
    from apf_tasks.data import ingestion

    return ingestion.ingest(out, data, family)


@stage(libraries=["pandas", "pyarrow", "numpy", "scipy"], is_preparation=True)
def split_rows(out: Path, raw: RawData, split: SplitParams, family: FamilyParams) -> Split:
    """Train, validation and test without a row, or its like, on two sides."""
    from apf_tasks.data import splitting

    return splitting.split_rows(out, raw, split, family)


@stage(
    libraries=["torch", "transformers", "tokenizers", "sentencepiece", "gguf", "jinja2", "pandas", "pyarrow"],
    identity=_tokenizer_identity,
    is_preparation=True,
)
def build_base(
    out: Path, split: Split, model: ModelParams, tokenizer: TokenizerParams, family: FamilyParams
) -> ScratchModel:
    """Random weights, and a tokenizer from the train split, for a model from scratch."""
    from apf_tasks.data import base_model

    return base_model.build_base(out, split, model, tokenizer, family)


def as_model_params(built: ScratchModel, model: ModelParams) -> ModelParams:
    """The params of a model that starts from what `build_base` built; what a plan does not know stays unknown."""

    def started_from() -> ModelParams:
        base = f"stages:build_base/{built.path.name}"
        return model.model_copy(update={"init": "pretrained", "base": base, "architecture": None, "sizes": {}})

    return or_pending(started_from)


@stage(
    libraries=[*ENCODING, "gguf"],
    identity=_base_identity,
    is_preparation=True,
)
def tokenize(out: Path, split: Split, name: SplitName, model: ModelParams, family: FamilyParams) -> TokenizedSplit:
    """One split as token ids and labels."""
    from apf_tasks.data import tokenization

    return tokenization.tokenize(out, split, name, model, family)


@stage(
    libraries=TRAINING,
    identity=_base_identity,
    resumable=True,
)
def train_model(out: Path, trial: TrainingInputs) -> TrainedModel:
    """One trial: every parameter updated on train, the best weights by validation."""
    from apf_tasks.training import train

    return train.train_model(out, trial)


@stage(libraries=TRAINING, identity=_base_identity)
def train_rung(out: Path, trial: TrainingInputs, until: int) -> Rung:
    """The first part of a trial, to see whether it is worth the rest."""
    from apf_tasks.training import rung

    with train_model.open_call(trial) as (key, folder):
        return rung.train_rung(out, folder, key, trial, until)


@stage(libraries=["pyarrow", "pandas", "numpy"])
def take_rows(out: Path, split: TokenizedSplit, fraction: float) -> TokenizedSplit:
    """A part of the train split; a smaller one is a part of a larger one."""
    from apf_tasks.data import subset

    return subset.subsample(out, split, fraction)


@stage(libraries=[*SCORING, "matplotlib"])
def learning_curve(
    out: Path,
    models: tuple[TrainedModel, ...],
    parts: tuple[TokenizedSplit, ...],
    family: FamilyParams,
    intervals: EvaluationParams,
) -> LearningCurve:
    """Validation scores over the rows trained on, and what more rows would bring."""
    from apf_tasks.evaluation import learning_curve

    return learning_curve.learning_curve(out, models, parts, family, intervals)


@stage(libraries=SCORING)
def select(
    out: Path,
    models: tuple[TrainedModel, ...],
    family: FamilyParams,
    settings: SelectParams,
    intervals: EvaluationParams,
    searched: tuple[str, ...],
    compared: int,
) -> Selection:
    """The best candidate on validation."""
    from apf_tasks.evaluation import selection

    return selection.select(out, models, family, settings, intervals, searched, compared)


@stage(
    code=["families.classification.baselines"],
    libraries=["torch", *ENCODING, *SCORING, "gguf", "gensim", "safetensors"],
    identity=_base_identity,
)
def evaluate(out: Path, given: EvaluationInputs) -> EvaluationReport:
    """The one test of the chosen model, beside the baselines."""
    from apf_tasks.evaluation import evaluate

    return evaluate.evaluate(out, given)


@stage(
    code=["serving.served_model"],
    libraries=["mlflow", "torch", *ENCODING],
    identity=registry_identity,
    exists_outside=still_registered,
)
def register(
    out: Path,
    selection: Selection,
    report: EvaluationReport,
    model: ModelParams,
    family: FamilyParams,
    runtime: RuntimeParams,
    name: str,
) -> RegisteredModel:
    """The chosen model in the registry, replayed before."""
    from apf_tasks.serving import register

    return register.register(out, selection, report, model, family, runtime, name)


def _version_identity(
    uri: str, rows_of: Split | RawData, family: FamilyParams, runtime: RuntimeParams
) -> dict[str, str]:
    from apf_tasks.tracking.registry import model_identity

    return {"content of uri": model_identity(uri)}


@stage(
    libraries=["torch", *ENCODING, *SCORING, "mlflow", "safetensors"],
    identity=_version_identity,
)
def contend(
    out: Path, uri: str, rows_of: Split | RawData, family: FamilyParams, runtime: RuntimeParams
) -> VersionScores:
    """A registered version on the test rows of a split, or on all rows that were read."""
    from apf_tasks.evaluation.registered import scores

    return scores.score_version(out, uri, rows_of, family, runtime)


def _champion_identity(
    champion: str, then: Split, now: Split, family: FamilyParams, settings: DriftParams, runtime: RuntimeParams
) -> dict[str, str]:
    from apf_tasks.tracking.registry import model_identity

    return {"content of champion": model_identity(champion)}


@stage(
    libraries=["torch", *ENCODING, "scipy", "scikit-learn", "mlflow", "safetensors"],
    identity=_champion_identity,
)
def measure_drift(
    out: Path,
    champion: str,
    then: Split,
    now: Split,
    family: FamilyParams,
    settings: DriftParams,
    runtime: RuntimeParams,
) -> DriftReport:
    """New rows beside those that the champion learned from."""
    from apf_tasks.evaluation import drift

    return drift.measure_drift(out, champion, then, now, family, settings, runtime)
