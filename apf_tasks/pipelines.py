"""The main job as a table of contents. Does not import Prefect, so that planning is fast."""

from __future__ import annotations

from apf_tasks.artifacts import DriftReport, LearningCurve, RegisteredModel
from apf_tasks.errors import ParamsError
from apf_tasks.inputs import EvaluationInputs, TrainingInputs
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import Experiment, Trial, with_trial
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.promotion.champion_rows import champion_split, champion_uri
from apf_tasks.promotion.warm_start import pin_aliases, resolve_aliases
from apf_tasks.search.search import base_model, search
from apf_tasks.search.trials import trial_source
from apf_tasks.stages import (
    evaluate,
    ingest,
    learning_curve,
    measure_drift,
    register,
    select,
    split_rows,
    take_rows,
    tokenize,
    train_model,
)
from apf_tasks.word_vectors.stages import probe_vectors, read_corpus, register_vectors, train_vectors


def pipeline(params: Params) -> RegisteredModel:
    """The stages in order. Under a dry journal the same lines are the plan."""
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    found = search(split, params)
    selection = select(found.models, params.family, params.select, params.test, found.searched, found.compared)
    base, train = found.start_of(selection)
    test = tokenize.labelled("test")(split, "test", base, params.family)
    report = evaluate(EvaluationInputs(selection, train, test, base, params.family, params.test, params.runtime))
    return register(selection, report, base, params.family, params.runtime, params.model_name)


def pipeline_of_either_kind(experiment: Experiment) -> RegisteredModel:
    """The stages of an experiment as it was written: an alias of the registry means what it means now."""
    if isinstance(experiment, WordVectorParams):
        return word_vector_pipeline(experiment)
    return pipeline(pin_aliases(experiment, resolve_aliases(experiment)))


def drifted(params: Params) -> DriftReport:
    """The stages of the comparison. Raises RegistryError where there is no champion, or its rows are elsewhere."""
    champion, then = champion_uri(params.model_name), champion_split(params.model_name)
    raw = ingest(params.data, params.family)
    now = split_rows(raw, params.split, params.family)
    return measure_drift(champion, then, now, params.family, params.drift, params.runtime)


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
            TrainingInputs(part, validation, base, params.family, params.train, params.runtime, params.metric)
        )
        for f, part in zip(fractions, parts, strict=True)
    )
    return learning_curve(models, parts, params.family, params.test)


def first_trial(params: Params) -> tuple[Trial, Params]:
    """What is trained on every part: the first trial of the search, or the params as they are written."""
    trial = trial_source(params).ask() or {}
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


def word_vector_pipeline(params: WordVectorParams) -> RegisteredModel:
    """The stages in order. Under a dry journal the same lines are the plan."""
    corpus = read_corpus(params.data, params.corpus)
    trained = train_vectors(corpus, params.vectors)
    report = probe_vectors(corpus, trained, params.probe)
    return register_vectors(corpus, trained, report, params.model_name)
