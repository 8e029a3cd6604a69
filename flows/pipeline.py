"""The main job as a table of contents. Knows nothing of Prefect, so that a plan of it answers at once."""

from __future__ import annotations

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.params import Params
from apf_tasks.stages import evaluate, ingest, register, select, split_rows, tokenize
from flows.search import search


def pipeline(params: Params) -> RegisteredModel:
    """The stages in order. Under a dry journal the same lines are the plan."""
    raw = ingest(params.data, params.family)
    split = split_rows(raw, params.split, params.family)
    found = search(split, params)
    selection = select(found.models, params.family, params.select, params.test, found.searched, found.compared)
    base, train = found.start_of(selection)
    test = tokenize.labelled("test")(split, "test", base, params.family)
    report = evaluate(selection, train, test, base, params.family, params.test, params.runtime)
    return register(selection, report, base, params.family, params.runtime, params.model_name)
