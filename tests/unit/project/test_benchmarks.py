"""The benchmark's two sides on the smoke experiments: that they run and measure, not how fast they are."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.cases import CASES, Case
from benchmarks.derived_rows import _questions_about
from benchmarks.job import Job, prepare
from benchmarks.overheads import checkpoint
from benchmarks.run import OTHERS, UNITS, compare, side
from benchmarks.sides import ours, peak_memory_mib
from benchmarks.trainer_answers import _answers, _positions
from benchmarks.trainer_labels import _labels
from benchmarks.trainer_side import trainer
from benchmarks.trainer_text import _blocks
from tests.support.paths import PROJECT
from tests.support.tiny import review_rows

SMOKE = PROJECT / "params" / "smoke"
NAMES = {"causal_lm-documents": "causal_lm"}
ONE_EPOCH = {"train.epochs": 1, "train.evaluate_every_epochs": 1}


ENCODER_DECODER = {"model.architecture": "t5", "tokenizer.train": "unigram", "family.prompt": None}
"""Seq2SeqTrainer takes no decoder, which is what the smoke experiment of translation has."""


def answerable(folder: Path) -> list[dict[str, str]]:
    """Questions with an answer each: the script for SQuAD 1.1 knows no others, the smoke experiment has them."""
    sentences = [row["text"] for row in review_rows(180)]
    groups = [sentences[at : at + 3] for at in range(0, len(sentences), 3)]
    return [row for at, group in enumerate(groups) for row in _questions_about(group, random.Random(at))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the other side
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.vocabulary is None])
def test_all_sides_do_the_same_job(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    derive = answerable if name == "question_answering" else None
    groups, warm_up = CASES[name].groups, min(1, CASES[name].warm_up_epochs)
    case = Case(SMOKE / f"{NAMES.get(name, name)}.yaml", 300, 16, groups, derive, warm_up)
    changes = ONE_EPOCH | (ENCODER_DECODER if name == "translation" else {})
    job = prepare(case, tmp_path, case.rows, "fp32", changes)
    assert Job.read(tmp_path) == job
    for measures in (ours(job), *(trainer(job, how) for how in OTHERS if how != "defaults")):
        assert set(measures) == {*UNITS, job.params.metric} - {"peak_memory_mib", "mfu"}
        assert not [key for key, value in measures.items() if not math.isfinite(value)], "numbers"
        measured = {key: value for key, value in measures.items() if key != job.params.metric}
        assert min(measured.values()) > 0, measured


@pytest.mark.slow
def test_each_side_is_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    prepare(Case(SMOKE / "sentiment.yaml", 300, 16), tmp_path, 300, "fp32", ONE_EPOCH)
    for name in ("ours", "defaults"):
        assert set(json.loads(side(name, tmp_path, threads=1))) == {*UNITS, "accuracy"} - {"mfu"}
    most = json.loads(side("ceiling", tmp_path, threads=1))
    assert most["flops_per_token"] > 6 * 10_000  # twice in the forward pass, four times in the backward pass
    assert most["ceiling"] > 1e8
    with pytest.raises(SystemExit, match="ours failed"):
        side("ours", tmp_path / "nothing", threads=1)


@pytest.mark.filterwarnings("ignore")  # of the other side
def test_a_checkpoint_is_measured_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    prepare(Case(SMOKE / "sentiment.yaml", 300, 16), tmp_path, 300, "fp32", ONE_EPOCH)
    (found,) = checkpoint(tmp_path, 2).values()
    assert set(found) == {"blocking", "beside", "written"}
    assert min(float(measure[side]) for measure in found.values() for side in ("ours", "other")) > 0, found


def test_every_family_is_compared() -> None:
    from apf_tasks.params.family import family_names
    from apf_tasks.params.file import load_params

    assert {load_params(case.params).family.name for case in CASES.values()} == set(family_names())


def test_the_ratio_is_ours_over_the_other() -> None:
    ours = dict.fromkeys((*UNITS, "accuracy"), 6.0)
    found = compare("sentiment", {"ours": ours, **dict.fromkeys(OTHERS, dict.fromkeys(ours, 4.0))})
    assert len(found) == len(OTHERS)
    for measures in found.values():
        assert measures["accuracy"] == {"ours": 6.0, "other": 4.0, "ratio": 1.5, "unit": "validation accuracy"}


def test_the_peak_is_that_of_the_process() -> None:
    before = peak_memory_mib()
    block = np.ones(200 * 2**20, dtype=np.uint8)
    assert peak_memory_mib() >= before
    assert peak_memory_mib() > block.nbytes / 2**20


def test_an_answer_stands_where_its_row_says() -> None:
    sentences = [f"sentence {word} has some more words than five" for word in ("one", "two", "three")]
    rows = [row for seed in range(20) for row in _questions_about(sentences, random.Random(seed))]
    assert len(rows) == 40
    for row in rows:
        start = int(row["answer_start"])
        assert row["context"][start : start + len(row["answer"])] == row["answer"]
        assert row["question"].replace("what", row["answer"], 1) in sentences


def test_blocks_drop_what_is_left_over() -> None:
    encoded = {"input_ids": [[1, 2, 3], [4, 5], [6, 7]], "mask": [[1, 1, 0], [1, 0], [1, 0]]}
    assert _blocks(encoded, 3) == {"input_ids": [[1, 2, 3], [4, 5, 6]], "mask": [[1, 1, 0], [1, 0, 1]]}


def test_the_first_piece_of_a_word_has_its_tag() -> None:
    assert _labels([None, 0, 0, 1, 2, None], [5, 6, 7]) == [-100, 5, -100, 6, 7, -100]


def test_windows_know_whether_they_hold_the_answer() -> None:
    offsets = [(-1, -1), (0, 3), (4, 6), (7, 12), (-1, -1)]
    assert _positions(offsets, 4, 12) == (2, 3)
    assert _positions(offsets, 5, 6) == (2, 2)
    assert _positions(offsets, 7, 15) == (0, 0)
    assert _positions(offsets, 20, 25) == (0, 0)


def test_the_best_legal_span_of_all_windows_is_the_answer() -> None:
    #          question  red      house    the end
    places = [[[-1, -1], [0, 3], [4, 9]], [[-1, -1], [4, 9], [10, 13]]]
    starts = np.array([[9.0, 1.0, 0.0], [9.0, 3.0, 0.0]])
    ends = np.array([[9.0, 0.0, 2.0], [9.0, 0.0, 1.0]])
    assert _answers(starts, ends, places, [0, 0], ["red house end"], 2) == ["house end"]
    assert _answers(starts, ends, places, [0, 0], ["red house end"], 1) == ["house"]
    assert _answers(starts, ends, places, [0, 1], ["red house", "red house end"], 2) == ["red house", "house end"]


def test_the_page_about_many_gpus_is_as_printed_and_its_models_have_their_size() -> None:
    assert (PROJECT / "docs" / "SCALE.md").read_text() == scale.page(), (
        "run: python -m benchmarks.scale > docs/SCALE.md"
    )
    known = {"0.1 B": 124.4e6, "1 B": 1.2358e9, "8 B": 8.030e9, "70 B": 70.55e9}
    for shape in scale.SHAPES:
        published = next(count for name, count in known.items() if shape.name.startswith(name))
        assert shape.parameters == pytest.approx(published, rel=0.01)
    one = scale.Machine()
    assert (
        scale.memory(scale.SHAPES[2], one, "AdamW", 8, True)
        < one.memory
        < scale.memory(scale.SHAPES[2], one, "AdamW", 8, False)
    )
