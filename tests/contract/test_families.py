"""What every family must keep; a new one is found by itself. (One that has other columns adds its rows to ROWS.)"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from apf_tasks.batching import Examples, token_table
from apf_tasks.errors import ParamsError
from apf_tasks.families import Family, family_names, get_family
from apf_tasks.loop import Place, predict
from apf_tasks.params import ModelParams
from apf_tasks.pretrained import load_tokenizer
from tests.tiny import review_rows, tiny_bert

ROWS = {"sentiment": (review_rows(12), ("negative", "positive"))}
PLACE = Place(torch.device("cpu"), torch.float32)


@pytest.fixture(params=family_names())
def family(request: pytest.FixtureRequest) -> Family:
    return get_family(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


def rows_of(family: Family) -> tuple[pd.DataFrame, tuple[str, ...]]:
    rows, names = ROWS[family.name]
    return pd.DataFrame(rows), names


def encoded(family: Family, folder: Path, rows: pd.DataFrame, max_tokens: int = 64) -> dict[str, list[object]]:
    tokenizer = load_tokenizer(folder, ModelParams(base=str(folder)))
    return family.encode(rows, tokenizer, family.params(name=family.name), rows_of(family)[1], max_tokens)


def test_it_says_what_it_is(family: Family) -> None:
    assert family.metrics
    assert set(family.text_columns) <= set(family.columns)
    assert set(family.example) <= set(family.columns)
    assert "prediction" in family.output_columns


def test_good_rows_are_good_and_empty_ones_are_named(family: Family) -> None:
    rows, _ = rows_of(family)
    params = family.params(name=family.name)
    assert set(family.check_rows(rows, params)) == {""}
    for column in family.columns:
        broken = rows.astype(object)
        broken.loc[0, column] = None
        assert family.check_rows(broken, params)[0] != ""
        broken.loc[0, column] = "  "
        assert family.check_rows(broken, params)[0] != ""


def test_encoding_keeps_rows_and_length(family: Family, folder: Path) -> None:
    rows, _ = rows_of(family)
    columns = encoded(family, folder, rows)
    assert {len(values) for values in columns.values()} == {len(rows)}
    assert {"input_ids", "labels", "truncated"} <= columns.keys()
    assert not any(columns["truncated"])
    short = encoded(family, folder, rows, max_tokens=8)
    assert max(len(ids) for ids in short["input_ids"]) == 8  # type: ignore[arg-type]
    assert all(short["truncated"])


def test_served_rows_need_no_reference(family: Family, folder: Path) -> None:
    served = pd.DataFrame([dict(family.example)])
    assert len(encoded(family, folder, served)["input_ids"]) == 1


def test_loss_is_a_sum_over_rows(family: Family, folder: Path) -> None:
    rows, names = rows_of(family)
    examples = Examples(token_table(encoded(family, folder, rows)))
    model = family.load_model(folder, ModelParams(base=str(folder)), family.params(name=family.name), names)
    model.train(False)
    parts = [family.loss(model, examples.collate(np.array([i]), 0, PLACE.device)) for i in range(len(rows))]
    whole = family.loss(model, examples.collate(np.arange(len(rows)), 0, PLACE.device))
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-4, atol=1e-4)


def test_predictions_have_the_served_columns(family: Family, folder: Path) -> None:
    rows, names = rows_of(family)
    model = family.load_model(folder, ModelParams(base=str(folder)), family.params(name=family.name), names)
    found = predict(model, Examples(token_table(encoded(family, folder, rows))), family, names, PLACE, 0)
    assert len(found) == len(rows)
    assert all(set(family.output_columns) <= set(prediction) for prediction in found)


def test_perfect_predictions_score_best_and_shuffled_ones_do_not(family: Family) -> None:
    rows, names = rows_of(family)
    references = list(family.reference(rows))
    perfect = family.scores(family.statistics(references, references, names).sum(axis=0))
    shifted = family.scores(family.statistics(references, references[1:] + references[:1], names).sum(axis=0))
    assert set(perfect) == set(family.metrics)
    assert all(float(score) == pytest.approx(1.0) for score in perfect.values())
    assert all(float(shifted[name]) < float(perfect[name]) for name in perfect)


def test_baselines_answer_every_row_and_are_repeatable(family: Family) -> None:
    rows, _ = rows_of(family)
    first, second = (family.baselines(rows, rows.head(5), 0) for _ in range(2))
    assert first
    assert all(len(answers) == 5 for answers in first.values())
    assert {n: list(a) for n, a in first.items()} == {n: list(a) for n, a in second.items()}


def test_an_unknown_family_is_answered_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match=r"one of .*sentiment.*Did you mean 'sentiment'\?"):
        get_family("sentimant")
