"""What both sides of a case are given: rows, their tokens as this project makes them, and a base model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from apf_tasks.artifacts import Split, TokenizedSplit
from apf_tasks.data import base_model
from apf_tasks.data.batching import collate, micro_batches
from apf_tasks.data.ingestion import ingest
from apf_tasks.data.rows import read_rows
from apf_tasks.data.splitting import split_rows
from apf_tasks.data.tokenization import tokenize
from apf_tasks.evaluation.predictor import EVALUATION_TOKENS
from apf_tasks.examples import Examples, count_targets
from apf_tasks.family import get_family
from apf_tasks.inputs import TrainingInputs
from apf_tasks.models.pretrained import load_base
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params
from apf_tasks.params.model import ModelParams
from apf_tasks.runtime.devices import autocast, choose_precision
from apf_tasks.sources.models import model_folder
from apf_tasks.tracking import tracker
from apf_tasks.training.train import train_model
from benchmarks.cases import Case

FILE = "job.json"


@dataclass(frozen=True)
class Job:
    """A case, ready to be trained."""

    params: Params
    model: ModelParams
    """The base as a local folder."""
    train: TokenizedSplit
    validation: TokenizedSplit
    best_batch: int
    groups: bool

    @property
    def folder(self) -> Path:
        """The folder of the base."""
        return Path(self.model.base)

    @property
    def trial(self) -> TrainingInputs:
        """Its training, as the params say."""
        params = self.params
        return TrainingInputs(
            self.train, self.validation, self.model, params.family, params.train, params.runtime, params.metric
        )

    def rows(self, name: str) -> pd.DataFrame:
        """The rows of a split, before tokenization."""
        return read_rows(getattr(self, name).path / "rows.parquet")

    def write(self, folder: Path) -> None:
        """Into job.json."""
        values = asdict(self) | {n: getattr(self, n).model_dump(mode="json") for n in ("model", "train", "validation")}
        values["params"] = self.params.model_dump(mode="json", by_alias=True)
        (folder / FILE).write_text(json.dumps(values))

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job in a folder."""
        values: dict[str, Any] = json.loads((folder / FILE).read_text())
        kinds = {"params": Params, "model": ModelParams, "train": TokenizedSplit, "validation": TokenizedSplit}
        return cls(**values | {name: kind.model_validate(values[name]) for name, kind in kinds.items()})


def validation_loss(job: Job, model: PreTrainedModel) -> float:
    """Mean loss per target over the validation rows, by the loss of the family, on both sides."""
    family, examples = get_family(job.params.family), Examples.of(job.validation)
    base, place = load_base(job.folder, job.model), choose_precision(job.params.runtime, model.device)
    model.train(False)
    total = targets = 0.0
    for indices in micro_batches(np.arange(len(examples)), examples.sizes, EVALUATION_TOKENS["cpu"]):
        columns = examples.take(indices)
        if family.mask is not None:
            columns = family.mask(columns, base, ())
        targets += count_targets(columns)
        with torch.inference_mode(), autocast(model.device, place):
            total += float(family.loss(model, collate(columns, base.pad_id, model.device)))
    return total / targets


def prepare(
    case: Case, folder: Path, rows: int | None, precision: str, changes: Mapping[str, Any] | None = None
) -> Job:
    """Read, split, build or fetch the base, tokenize. `changes` are overrides of the params."""
    overrides: dict[str, Any] = {"data.max_rows": rows, "runtime.precision": precision, "runtime.device": "cpu"}
    overrides |= changes or {}
    if case.derive is not None:
        file = folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in case.derive(folder)), encoding="utf-8")
        overrides["data.source"] = str(file)
    params = load_params(case.params, overrides)
    paths = {name: folder / name for name in ("raw", "split", "base", "train", "validation", "warm_up")}
    for path in paths.values():
        path.mkdir()
    split = split_rows(paths["split"], ingest(paths["raw"], params.data, params.family), params.split, params.family)
    model = _base(params, split, paths["base"], case.vocabulary)
    train, validation = (tokenize(paths[n], split, n, model, params.family) for n in ("train", "validation"))  # type: ignore[arg-type]
    if case.warm_up_epochs:
        longer = params.train.model_copy(
            update={"epochs": case.warm_up_epochs, "evaluate_every_epochs": case.warm_up_epochs}
        )
        trial = TrainingInputs(train, validation, model, params.family, longer, params.runtime, params.metric)
        trained = train_model(paths["warm_up"], trial)
        model = model.model_copy(update={"base": str(trained.path / "model")})
    tracker.experiment_id("apf")  # an empty store is made once, not by every training
    job = Job(params, model, train, validation, case.best_batch, case.groups)
    job.write(folder)
    return job


def _base(params: Params, split: Split, out: Path, vocabulary: int | None) -> ModelParams:
    if params.model.init == "scratch":
        built = base_model.build_base(out, split, params.model, params.tokenizer, params.family)
        folder = built.path / "model"
        if vocabulary is not None:
            model = AutoModelForCausalLM.from_pretrained(folder)
            model.resize_token_embeddings(vocabulary)
            model.save_pretrained(folder)
    else:
        folder = model_folder(params.model)
    return ModelParams(base=str(folder), max_tokens=params.model.max_tokens)
