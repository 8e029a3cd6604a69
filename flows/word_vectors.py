"""Word vectors: text in, a probed and registered table of word vectors out."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from apf_tasks import tracking
from apf_tasks.artifacts import RegisteredModel
from apf_tasks.stage import journal
from apf_tasks.word_vectors.params import load_word_vectors
from apf_tasks.word_vectors.recording import record
from flows.environment import prepare
from flows.word_vector_pipeline import word_vector_pipeline

prepare()  # prefect reads its settings when it is imported

from prefect import flow  # noqa: E402


@flow(name="word-vectors", flow_run_name="{params}")
def word_vectors(params: str, overrides: dict[str, Any] | None = None) -> RegisteredModel:
    """Train word vectors on a text, ask them for near words and analogies, register them.

    `params` names a file in params/ or a path; `overrides` are dotted, such as {"vectors.dimensions": 50}.
    """
    experiment = load_word_vectors(params, overrides or {})
    with tracking.pipeline_run(experiment) as run_id, journal() as done:
        done.run_id = run_id
        try:
            registered = word_vector_pipeline(experiment)
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong first is what the person needs to see
                record(run_id, experiment, done.visits)
            raise
        record(run_id, experiment, done.visits)
        return registered


if __name__ == "__main__":
    from flows.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
