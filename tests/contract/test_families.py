"""What every family must keep. Each params file in params/smoke/ is a case, so a new family is found by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from apf_tasks.data import base_model
from apf_tasks.data.batching import collate
from apf_tasks.data.ingestion import ingest
from apf_tasks.data.rows import read_rows
from apf_tasks.data.splitting import split_rows
from apf_tasks.errors import ParamsError
from apf_tasks.evaluation.predictor import (
    Placement,
    Predictor,
    load_predictor,
    metric_scores,
    predict_rows,
    row_statistics,
)
from apf_tasks.examples import Columns, Examples, select_columns, token_table
from apf_tasks.family import BaselineInputs, Family, get_family
from apf_tasks.params.experiment import Params
from apf_tasks.params.family import FamilyParams, family_names
from apf_tasks.params.file import load_params
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.from_params import build
from tests.support.paths import PROJECT

SMOKE = [p for p in sorted((PROJECT / "params" / "smoke").glob("*.yaml")) if "family" in yaml.safe_load(p.read_text())]
PLACE = Placement(torch.device("cpu"), torch.float32)
PERFECT = {"question_answering": lambda references: [answers[0] if answers else "" for answers in references]}
"""Families that have several references for a row -> the predictions that are right."""
WRONG = {"ner": lambda right: [tags[1:] + tags[:1] for tags in right]}
"""Families whose predictions fit their own row alone -> wrong ones; elsewhere each row gets its neighbour's."""


@dataclass(frozen=True)
class Case:
    """A smoke experiment up to the point where training would start."""

    params: Params
    family: Family
    network: Predictor
    folder: Path
    train: pd.DataFrame
    test: pd.DataFrame

    @property
    def rows(self) -> pd.DataFrame:
        return self.train.head(12)

    def encode(self, rows: pd.DataFrame) -> Columns:
        return self.family.encode(rows.reset_index(drop=True), self.network.base, self.network.label_names)

    def examples(self, rows: pd.DataFrame) -> Examples:
        return Examples(token_table(self.encode(rows)))


@pytest.fixture(scope="module", params=SMOKE, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param.stem)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT)
        params = load_params(request.param)
        for name in ("raw", "split", "base"):
            (folder / name).mkdir()
        raw = ingest(folder / "raw", params.data, params.family)
        split = split_rows(folder / "split", raw, params.split, params.family)
        base_model.build_base(folder / "base", split, params.model, params.tokenizer, params.family)
    model = ModelParams(base=str(folder / "base" / "model"), max_tokens=params.model.max_tokens)
    network = load_predictor(
        folder / "base" / "model", model, params.family, split.label_names, RuntimeParams(precision="fp32")
    )
    train, test = (read_rows(folder / "split" / f"{name}.parquet") for name in ("train", "test"))
    return Case(params, get_family(params.family), network, folder, train, test)


def test_every_family_has_a_smoke_experiment() -> None:
    assert {load_params(path).family.name for path in SMOKE} == set(family_names())


def test_it_says_what_it_is(case: Case) -> None:
    assert case.family.metrics
    assert case.family.lower_is_better <= set(case.family.metrics)
    assert set(case.family.text_columns) <= set(case.family.columns)
    assert set(case.family.key_columns) <= set(case.family.columns)
    assert case.family.output_columns


def test_good_rows_are_good_and_empty_ones_are_named(case: Case) -> None:
    rows = case.rows[[*case.family.columns]]
    assert set(case.family.check(rows).reasons) == {""}
    broken = rows.copy()
    for column in case.family.columns:
        broken[column] = pd.Series([None, *broken[column].iloc[1:]], index=rows.index, dtype=object)
    assert case.family.check(broken).reasons[0] != ""
    assert set(case.family.check(broken).reasons[1:]) == {""}


def test_encoding_keeps_every_row_within_the_limit(case: Case) -> None:
    columns = case.encode(case.train)
    assert {"input_ids", "labels", "truncated"} <= columns.keys()
    assert len({len(values) for values in columns.values()}) == 1
    own = columns.get("row", list(range(len(case.train))))
    assert own == sorted(own)
    assert set(own) == set(range(len(case.train)))
    assert max(len(ids) for ids in columns["input_ids"]) <= case.params.model.max_tokens
    assert not [labels for labels in columns["labels"] if set(labels) == {-100}], "a target in every example"


def test_served_rows_need_no_reference(case: Case) -> None:
    served = pd.DataFrame([dict(case.family.example), dict.fromkeys(case.family.example, "")])
    found = predict_rows(case.network, case.examples(served), served, {})
    assert len(found) == 2
    for column, kind in case.family.output_columns.items():
        expected = {"string": str, "double": float, "long": int}[kind]
        assert {type(answer[column]) for answer in found} == {expected}, column


def test_loss_is_a_sum_over_examples(case: Case) -> None:
    columns = case.examples(case.rows).take(np.arange(8))
    if case.family.mask is not None:
        columns = case.family.mask(columns, case.network.base, (0, 0))
    model, pad_id = case.network.model, case.network.base.pad_id
    model.train(False)
    with torch.no_grad():
        parts = [case.family.loss(model, collate(select_columns(columns, [i]), pad_id, PLACE.device)) for i in range(8)]
        whole = case.family.loss(model, collate(columns, pad_id, PLACE.device))
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-4, atol=1e-3)


def test_predictions_do_not_depend_on_the_neighbours(case: Case) -> None:
    together = predict_rows(case.network, case.examples(case.rows), case.rows, {})
    assert len(together) == len(case.rows)
    promised = {"prediction", *case.family.output_columns}
    assert not [found for found in together if promised - set(found)], f"{promised} in every prediction"
    for i in (0, 5):
        row = case.rows.iloc[[i]].reset_index(drop=True)
        alone = predict_rows(case.network, case.examples(row), row, {})[0]
        for column, kind in case.family.output_columns.items():
            if kind == "double":
                assert alone[column] == pytest.approx(together[i][column], rel=1e-3, abs=1e-3)
            else:
                (text, numbers), (expected, near) = map(_numbers_apart, (alone[column], together[i][column]))
                assert text == expected
                assert numbers == pytest.approx(near, rel=1e-3, abs=1e-3)


def _numbers_apart(value: Any) -> tuple[str, Any]:
    """The text without its decimal numbers, and the numbers, whose last digits depend on the neighbours."""
    decimal = r"\d+\.\d+(?:e-?\d+)?"
    return re.sub(decimal, "#", str(value)), [float(number) for number in re.findall(decimal, str(value))]


def test_perfect_predictions_score_best_and_shuffled_ones_do_not(case: Case) -> None:
    if case.family.needs_labels:
        pytest.skip("a language model predicts no reference; tests/unit has its scores")
    references, names = list(case.family.reference(case.train)), case.network.label_names
    right = PERFECT.get(case.family.name, list)(references)
    wrong = WRONG.get(case.family.name, lambda r: r[1:] + r[:1])(right)
    perfect, shifted = (
        metric_scores(case.family, case.family.statistics(references, found, names)) for found in (right, wrong)
    )
    assert set(perfect) == set(case.family.metrics)
    best = {"bleu": 100, "chrf": 100}
    for name in perfect:
        wanted = 0 if name in case.family.lower_is_better else best.get(name, 1)
        assert perfect[name] == pytest.approx(wanted, abs=1e-9), name
        assert case.family.sign(name) * shifted[name] < case.family.sign(name) * perfect[name], name


def test_baselines_answer_every_row_and_are_repeatable(case: Case) -> None:
    train, test = (BaselineInputs(rows, case.examples(rows)) for rows in (case.train, case.test))
    first, second = (case.family.baselines(train, test, 0) for _ in range(2))
    assert first
    assert {n: list(a) for n, a in first.items()} == {n: list(a) for n, a in second.items()}
    for answers in first.values():
        found = [{"prediction": answer} for answer in answers]
        statistics = row_statistics(case.family, case.family.reference(case.test), found, case.network.label_names)
        assert len(statistics) == len(case.test)
        assert np.isfinite(list(metric_scores(case.family, statistics).values())).all()


def test_training_moves_every_parameter(case: Case) -> None:
    model = case.family.load_model(case.folder / "base" / "model", case.params.model, case.network.label_names)
    network = Predictor(model, case.network.base, case.family, case.network.label_names, PLACE)
    train = case.params.train.model_copy(update={"learning_rate": 1e-3, "warmup_fraction": 0, "epochs": 1})
    constants = case.family.constants(case.train, network.label_names) if case.family.constants else None
    optimizer = build(train.optimizer, model, 1e-3, 0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = [s.loss for s in train_steps(network, optimizer, case.examples(case.train), train, constants=constants)]
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    assert np.isfinite(losses).all()


def test_an_unknown_family_is_answered_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match=r"one of .*sentiment.*Did you mean 'sentiment'\?"):
        get_family(FamilyParams(name="sentimant"))
