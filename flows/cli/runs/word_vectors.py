"""`apf vectors` and `apf similar`."""

from __future__ import annotations

import csv
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from apf_tasks.artifacts import RegisteredModel
from apf_tasks.cache.journal import PipelineRun, journal
from apf_tasks.params.file import origin
from apf_tasks.pipelines import word_vector_pipeline
from apf_tasks.runs.experiments import load_word_vectors
from apf_tasks.runs.reused import reuse
from apf_tasks.tracking.lookup import run_page
from apf_tasks.word_vectors.artifacts import Corpus, TrainedVectors, VectorReport
from flows.cli._app import AsJson, Overrides, ParamsFile, out, print_page, run_line


def vectors(params: ParamsFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train word vectors by a params file with a section `vectors`, and register them. `apf run` does the same."""
    from apf_tasks.params.file import parse_overrides
    from flows.orchestration._console import console_logging

    experiment = load_word_vectors(params, overrides)
    console_logging()
    done = reuse(experiment, word_vector_pipeline, origin(params))
    if done is None:
        from flows.orchestration.settings import warm_up_servers

        warm_up_servers()
        from flows.word_vectors import word_vectors

        with journal() as done:
            word_vectors(params, parse_overrides(overrides or ()))
    if as_json:
        print(json.dumps(word_document(done), ensure_ascii=False))
    else:
        print_words(out, done)


def similar(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION of word vectors")],
    word: Annotated[str, typer.Argument(help="The word to ask about.")],
    other: Annotated[str | None, typer.Argument(help="A second word, to print the similarity of both.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Nearest words to show.")] = 10,
) -> None:
    """Query word vectors: the nearest words of one word, or the cosine of two."""
    from apf_tasks.word_vectors.similar import similar
    from flows.orchestration._console import console_logging

    console_logging()
    print_similar(out, word, other, similar(model, word, other, count))


def word_document(done: PipelineRun) -> dict[str, Any]:
    """The machine-readable outcome of a run."""
    handles = {stage_run.stage: stage_run.handle for stage_run in done.stage_runs}
    corpus, trained, report, registered = (
        handles[name].model_dump(mode="json", exclude={"path", "fingerprint", "vectors_fingerprint"})  # type: ignore[union-attr]
        for name in ("read_corpus", "train_vectors", "probe_vectors", "register_vectors")
    )
    return {
        "run_id": done.run_id or None,
        "registered_by": registered["run_id"],
        "model_uri": registered["model_uri"],
        "page": run_page(done.run_id or registered["run_id"]),
        "stages": {stage_run.stage: stage_run.status for stage_run in done.stage_runs},
        "corpus": corpus,
        "training": trained,
        "report": report,
    }


def print_words(out: Console, done: PipelineRun) -> None:
    """Nearest words, analogies, the numbers, and what was reused."""
    for stage_run in done.stage_runs:
        handle = stage_run.handle
        if isinstance(handle, (Corpus, TrainedVectors)):
            out.print(escape(handle.describe()))
        if isinstance(handle, TrainedVectors) and handle.held_out_accuracy is not None:
            rule = f"choosing the more frequent word {handle.frequency_accuracy:.3f}, chance 0.5"
            out.print(f"Held out: the true word of a context above noise {handle.held_out_accuracy:.3f}; {rule}.")
        if isinstance(handle, VectorReport):
            _print_csv(out, handle, "nearest.csv", "Nearest words, with their cosines")
            _print_csv(out, handle, "analogies.csv", "Analogies")
            out.print(escape(handle.describe()))
            out.print(f"The map: {handle.path / 'map.png'}", soft_wrap=True)
        if isinstance(handle, RegisteredModel):
            reused = sum(v.status == "reused" for v in done.stage_runs)
            count = len(done.stage_runs)
            did = "nothing was computed" if reused == count else f"{count - reused} ran"
            out.print(
                f"{handle.model_uri} · {run_line(done.run_id, handle)} · {reused} of {count} stages reused; {did}."
            )
            print_page(out, run_page(done.run_id or handle.run_id))


def _print_csv(out: Console, report: VectorReport, name: str, title: str) -> None:
    with (report.path / name).open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    if not rows:
        return
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)


def print_similar(out: Console, word: str, other: str | None, found: dict[str, Any]) -> None:
    """The answer of a served model: the cosine of two words, or the nearest ones of one."""
    if other is not None:
        out.print(f"{word} · {other}: {found['similarity']:.4f}", markup=False, highlight=False)
        return
    table = Table("", "word", "cosine", box=None, pad_edge=False)
    for rank, neighbour in enumerate(json.loads(found["nearest"]), start=1):
        table.add_row(str(rank), escape(neighbour["word"]), f"{neighbour['cosine']:.4f}")
    out.print(table)
