"""Adding a family touches one module and one params file: a toy one, made here, goes through the whole job."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from apf_tasks import families
from apf_tasks.artifacts import EvaluationReport
from apf_tasks.cache import code_digest
from apf_tasks.cache.journal import journal
from apf_tasks.tracking import client as tracker
from flows.cli.main import main
from tests.support.tiny import review_rows, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")

MODULE = '''
"""Toy: does a text have more than ten words?"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from apf_tasks.family import CheckedRows, Family
from apf_tasks.families.classification.targets import one_label
from apf_tasks.params.experiment import FamilyParams, ModelParams


class WordCountParams(FamilyParams):
    """Options of the toy."""

    most: int = 10
    """Words of a short text."""


PARAMS = WordCountParams


def family(params: WordCountParams) -> Family:
    """The toy family."""
    target = one_label()

    def check(rows: pd.DataFrame) -> CheckedRows:
        reasons = pd.Series("", index=rows.index, dtype=object)
        reasons[rows["text"].isna()] = "no text"
        words = rows["text"].astype(str).str.split().str.len()
        return CheckedRows(rows.assign(length=["long" if n > params.most else "short" for n in words]), reasons)

    def encode(rows, base, label_names):
        ids = base.tokenizer(rows["text"].tolist(), truncation=True, max_length=base.max_tokens)["input_ids"]
        labels = [[label_names.index(v)] for v in rows["length"]] if "length" in rows else [[0]] * len(rows)
        return {"input_ids": ids, "labels": labels, "truncated": [False] * len(rows)}

    def load_model(folder, model: ModelParams, label_names):
        from apf_tasks.models.pretrained import load_pretrained

        return load_pretrained(folder, model, "AutoModelForSequenceClassification", **target.outputs(label_names))

    from apf_tasks.families import model_inputs

    return Family(
        name="word_count",
        columns={"text": "a text", "length": "long or short"},
        alternatives=({"text": "a text"},),
        text_columns=("text",),
        metrics=target.metrics,
        check=check,
        encode=encode,
        labels=lambda rows: [[v] for v in rows["length"]],
        load_model=load_model,
        loss=lambda model, batch: target.loss(model(**model_inputs(batch)).logits.float(), batch),
        predict=lambda model, batch, base, names: target.decide(model(**model_inputs(batch)).logits.float(), names),
        reference=lambda rows: rows["length"].tolist(),
        statistics=target.statistics,
        scores=target.scores,
        baselines=lambda train, test, seed: {"long": ["long"] * len(test.rows)},
        example={"text": "a b c"},
        output_columns={"prediction": "string"},
    )
'''

PARAMS = """
family: {name: word_count, most: 14}
data: {source: rows.jsonl}
split: {validation_fraction: 0.2, test_fraction: 0.2, near_duplicate_similarity: }
model: {init: scratch, architecture: bert, sizes: {hidden_size: 32, num_layers: 1, num_heads: 2}, max_tokens: 48}
tokenizer: {train: wordpiece, vocab_size: 300}
train: {learning_rate: 3e-3, epochs: 6, batch_size: 8}
test: {resamples: 200}
"""


def test_one_module_and_one_params_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "families"
    package.mkdir()
    (package / "word_count.py").write_text(MODULE)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(package)])
    source = code_digest._source
    monkeypatch.setattr(
        code_digest, "_source", lambda m: package / "word_count.py" if m.endswith(".word_count") else source(m)
    )
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", review_rows(200))
    (tmp_path / "words.yaml").write_text(PARAMS)
    try:
        with journal() as done, pytest.raises(SystemExit) as ended:
            main(["run", "words.yaml"])
        assert ended.value.code in (0, None)
        report = next(v.handle for v in done.stage_runs if isinstance(v.handle, EvaluationReport))
        assert report.scores["accuracy"] > report.baselines["long"]["accuracy"]
        assert "before_fine_tuning" in report.baselines
        assert tracker.client().get_registered_model("words").aliases
    finally:
        sys.modules.pop("apf_tasks.families.word_count", None)
