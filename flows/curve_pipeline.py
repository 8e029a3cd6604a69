"""The stages of a learning curve, in order. Knows nothing of Prefect. The test split is not even tokenized."""

from __future__ import annotations

from apf_tasks.curve_artifact import LearningCurve
from apf_tasks.errors import ParamsError
from apf_tasks.params import Params
from apf_tasks.params_file import Trial, with_trial
from apf_tasks.stages import ingest, learning_curve, split_rows, take_rows, tokenize, train_model
from apf_tasks.trials import draws
from flows.search import base_model

FRACTIONS = (0.125, 0.25, 0.5, 1.0)


def curve_pipeline(params: Params, fractions: tuple[float, ...] = FRACTIONS) -> LearningCurve:
    """One training per fraction of train, all else alike. The whole of train is the same stage call as in `apf run`."""
    _, params = first_trial(params)
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    base = base_model(split, params)
    train = tokenize.labelled("train")(split, "train", base, params.family)
    validation = tokenize.labelled("validation")(split, "validation", base, params.family)
    parts = tuple(train if f == 1 else take_rows.labelled(part_name(f))(train, f) for f in fractions)
    _check_different([part.rows for part in parts])
    models = tuple(
        train_model.labelled(part_name(f))(
            part, validation, base, params.family, params.train, params.runtime, params.metric
        )
        for f, part in zip(fractions, parts, strict=True)
    )
    return learning_curve(models, parts, params.family, params.test)


def first_trial(params: Params) -> tuple[Trial, Params]:
    """What is trained on every part: the first trial of the search, or the params as they are written."""
    trial = draws(params).ask() or {}
    return trial, with_trial(params, trial)


def part_name(fraction: float) -> str:
    """How a part is called in front of people."""
    return "all of train" if fraction == 1 else f"{fraction:g} of train"


def parse_fractions(text: str) -> tuple[float, ...]:
    """`0.25,0.5,1` → ascending fractions, each once. Raises ParamsError."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] <= 0 or found[-1] > 1:
        raise ParamsError("--fractions", "numbers above 0 and up to 1", repr(text), "Write for example 0.25,0.5,1.")
    return tuple(found)


def _check_different(rows: list[int]) -> None:
    """Raises ParamsError before two trainings on the same rows."""
    if len(set(rows)) < len(rows):
        found = "parts of " + ", ".join(f"{count:,}" for count in rows) + " rows"
        raise ParamsError("--fractions", "parts of different sizes", found, "Leave out the small ones.")
