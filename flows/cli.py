"""The `apf` command: parse, call a flow, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from apf_tasks.errors import ApfError, Interrupted, ParamsError
from apf_tasks.word_vectors.params import WordVectorParams, load_experiment, load_word_vectors
from flows import plan_cli, registry_cli, service_cli

app = typer.Typer(
    help="Full-parameter fine-tuning: one YAML file in, a tested and registered model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()

ParamsFile = Annotated[str, typer.Argument(help="A params file, or the bare name of one in params/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Dotted overrides: train.learning_rate=3e-5", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def run(params: ParamsFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run an experiment: reuse what is known, compute the rest, register the chosen model."""
    from apf_tasks.params_file import parse_overrides
    from flows.environment import console_logging, start_together

    experiment = load_experiment(params, overrides or ())  # every problem at once, before prefect is even imported
    if isinstance(experiment, WordVectorParams):
        vectors(params, overrides, as_json)
        return
    console_logging()
    from apf_tasks.stage import journal
    from flows.fine_tune import fine_tune
    from flows.live_search import shown_live
    from flows.run_output import print_outcome, run_document

    start_together(workers=experiment.search.parallel > 1)
    with journal() as done, shown_live(done, experiment):
        fine_tune(params, parse_overrides(overrides or ()))
    if as_json:
        print(json.dumps(run_document(done)))
    else:
        print_outcome(out, done)


@app.command()
def vectors(params: ParamsFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Train word vectors by a params file with a section `vectors`, and register them. `apf run` does the same."""
    from apf_tasks.params_file import parse_overrides
    from flows.environment import console_logging, start_together

    load_word_vectors(params, overrides or ())
    console_logging()
    from apf_tasks.stage import journal
    from flows.word_output import print_words, word_document
    from flows.word_vectors import word_vectors

    start_together()
    with journal() as done:
        word_vectors(params, parse_overrides(overrides or ()))
    if as_json:
        print(json.dumps(word_document(done), ensure_ascii=False))
    else:
        print_words(out, done)


@app.command()
def curve(
    params: ParamsFile,
    overrides: Overrides = None,
    fractions: Annotated[
        str, typer.Option(help="Parts of the train split to train on, such as 0.1,0.2,0.5,1.")
    ] = "0.125,0.25,0.5,1",
    as_json: AsJson = False,
) -> None:
    """What would more labels bring? Train on growing parts of train, score on validation, extrapolate."""
    from apf_tasks.params_file import parse_overrides
    from flows.curve_pipeline import parse_fractions
    from flows.environment import console_logging, start_together

    experiment, parts = load_experiment(params, overrides or ()), parse_fractions(fractions)
    if isinstance(experiment, WordVectorParams):
        raise ParamsError(
            "apf curve", "rows with something to learn", "word vectors", "Name a params file of a family."
        )
    console_logging()
    from apf_tasks.stage import journal
    from flows.curve_output import curve_document, print_curve
    from flows.learning_curve import learning_curve

    start_together()
    with journal() as done:
        learning_curve(params, parse_overrides(overrides or ()), parts)
    if as_json:
        print(json.dumps(curve_document(done), ensure_ascii=False))
    else:
        print_curve(out, done, experiment)


@app.command()
def check(params: ParamsFile, overrides: Overrides = None) -> None:
    """Check a params file: all problems at once."""
    experiment = load_experiment(params, overrides or ())
    if isinstance(experiment, WordVectorParams):
        settings = experiment.vectors
        out.print(f"{experiment.name}: fine. Word vectors, {settings.algorithm}, {settings.dimensions} dimensions.")
        return
    count = experiment.search.count
    out.print(f"{experiment.name}: fine. {experiment.family.name}, {experiment.model.origin}, {count} combination(s).")


@app.command()
def new(
    family: Annotated[str, typer.Argument(help="What to learn: sentiment, ner, translation, …")],
    file: Annotated[str, typer.Argument(help="A file, a folder, a pattern in quotes, train.{en,zh}, or hub:NAME.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write the params file.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="text=body: which column is which, where a guess fails.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Text encoding of the file.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace a params file that exists.")] = False,
) -> None:
    """Write a params file for a data file: guess its columns, the model and the settings, and say why."""
    from apf_tasks.new_params import default_path, draft, refuse_existing, write
    from apf_tasks.params_file import parse_overrides
    from flows.new_output import print_draft

    path = output or default_path(family, file)
    refuse_existing(path, force)
    told = {name: str(value) for name, value in parse_overrides(column or ()).items()}
    found = draft(family, file, told, encoding)
    write(found, path, force)
    print_draft(out, found, path)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION")],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet with the model's input columns.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV, TSV, JSONL or Parquet to write.")],
) -> None:
    """Score a file with a registered model: one row out per row in, whatever its size."""
    from apf_tasks.scoring import score_file
    from flows.environment import console_logging

    console_logging()
    found = score_file(model, file, output)
    failed = f", {found.failed:,} of them without a prediction: see the column `error`" if found.failed else ""
    out.print(f"{found.rows:,} rows → {output}{failed}")


@app.command()
def similar(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION of word vectors")],
    word: Annotated[str, typer.Argument(help="The word to ask about.")],
    other: Annotated[str | None, typer.Argument(help="A second word: how similar are they?")] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Nearest words to show.")] = 10,
) -> None:
    """Ask word vectors: the nearest words of one word, or the cosine of two."""
    from flows.environment import console_logging
    from flows.similar import similar as ask
    from flows.word_output import print_similar

    console_logging()
    print_similar(out, word, other, ask(model, word, other, count))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="Run ids, the starts of some, or models:/NAME@ALIAS.")],
    picture: Annotated[Path, typer.Option("-o", "--output", help="Where to draw the picture.")] = Path("compare.png"),
    metric: Annotated[str | None, typer.Option(help="Compare by this score, not by the one that decides.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put past runs side by side, and say which is reliably better on the same test rows."""
    from flows.compare import compare_runs, document
    from flows.compare_output import print_compared

    compared = compare_runs(runs, metric, picture)
    if as_json:
        print(json.dumps(document(compared), ensure_ascii=False))
    else:
        print_compared(out, compared)


@app.command()
def rerun(
    run: Annotated[str, typer.Argument(help="A run id, the start of one, or models:/NAME@ALIAS.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute all of it again, in a temporary store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Repeat a past run from its record alone, say what is different today, and compare the scores."""
    from apf_tasks.past_runs import past_run
    from apf_tasks.then_and_now import then_and_now, where_it_ran
    from flows.environment import console_logging, start_together
    from flows.rerun_output import print_rerun, print_then_and_now, rerun_document

    past = past_run(run)
    with where_it_ran(past.provenance, past.params) as elsewhere:
        lines = then_and_now(past.provenance, past.params)
        if not as_json:
            print_then_and_now(out, past, elsewhere, lines)
        console_logging()
        from flows.rerun import repeat

        start_together()
        repeated = repeat(past, fresh)
    if as_json:
        print(json.dumps(rerun_document(repeated, lines), ensure_ascii=False))
    else:
        print_rerun(out, repeated)


for command in (plan_cli.plan, *registry_cli.COMMANDS, *service_cli.COMMANDS):
    app.command()(command)
app.add_typer(registry_cli.registry, name="registry")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. An ApfError is one readable message and exit status 1; 130 after an interruption."""
    try:
        app(arguments)
    except ApfError as error:
        Console(stderr=True, highlight=False).print(f"[red]{type(error).__name__}[/]", end=" ")
        print(error, file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except Exception as error:
        away = type(error).__module__.startswith("httpx") or "Failed to reach API" in str(error)
        if not away:  # both are of Prefect's client alone; it asked for a while
            raise
        _without_prefect(error)
    return 0


def _without_prefect(error: Exception) -> NoReturn:
    """Prefect's server has gone away. Its client would now wait for minutes at the exit to tell it so."""
    url = os.environ.get("PREFECT_API_URL", "of its own")
    print(
        f"Prefect's server {url} does not answer ({error}). What was done is stored and in MLflow: the same command, "
        "with the server back or PREFECT_API_URL unset, finishes and shows it.",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
