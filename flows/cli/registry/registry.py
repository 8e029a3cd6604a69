"""The commands about registered models: which there are, who is champion, since when and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli._app import AsJson, out

registry = typer.Typer(help="Registered models: which version is champion, since when, and why.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name of a registered model.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the log.")]


@registry.command()
def ls(as_json: AsJson = False) -> None:
    """All registered models and the versions of their aliases."""
    from apf_tasks.tracking.registry import all_versions
    from flows.cli.registry._output import as_document, print_models

    models = all_versions()
    print(as_document(models)) if as_json else print_models(out, models)


@registry.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """All versions of one model."""
    from apf_tasks.tracking.registry import versions_of
    from flows.cli.registry._output import as_document, print_versions

    versions = versions_of(name)
    print(as_document(versions)) if as_json else print_versions(out, name, versions)


@registry.command()
def history(
    name: Name,
    replay: Annotated[bool, typer.Option("--replay", help="Restore the registry's aliases from the log.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every change of the champion. An interrupted change is completed first."""
    from apf_tasks.tracking import champion
    from flows.cli.registry._output import as_document, print_history

    found = champion.restore_aliases(name) if replay else champion.history(name)
    print(as_document(found)) if as_json else print_history(out, found)


def promote(
    name: Name,
    version: Annotated[int | None, typer.Argument(help="The version; the challenger when not given.")] = None,
    why: Why = "",
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Evaluate it first, on the current test rows.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Evaluate the gate, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, if it passes the gate of its params."""
    from flows.cli.registry._output import as_document, print_move, print_verdict
    from flows.orchestration._console import console_logging

    console_logging()
    if not gate:
        from apf_tasks.promotion.promote import challenger_of
        from apf_tasks.tracking import champion

        number = version or challenger_of(name)
        move = champion.promote(name, number, why or "by hand, no gate", champion.champion_of(name))
        print(as_document(move)) if as_json else print_move(out, move)
        return
    from flows.orchestration.settings import warm_up_servers

    warm_up_servers()
    from flows.promote import promote

    verdict = promote(name, version, why, dry_run)
    print(json.dumps(verdict.model_dump(mode="json"))) if as_json else print_verdict(out, verdict)


def rollback(name: Name, why: Why, as_json: AsJson = False) -> None:
    """Make the previous champion the champion again."""
    from apf_tasks.tracking import champion
    from flows.cli.registry._output import as_document, print_move

    move = champion.rollback(name, why)
    print(as_document(move)) if as_json else print_move(out, move)


def export(
    model: Annotated[str, typer.Argument(help="NAME@ALIAS or NAME/VERSION of a registered model.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an older export.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a registered model to ONNX, if its outputs then equal those of the original."""
    from flows.orchestration._console import console_logging

    console_logging()
    from apf_tasks.serving.onnx.export import export_registered
    from flows.cli.registry._output import as_document, print_exported

    found = export_registered(f"models:/{model.removeprefix('models:/')}", to, force)
    print(as_document(found)) if as_json else print_exported(out, found)


def reconcile(as_json: AsJson = False) -> None:
    """Clean up after killed processes: unfinished runs, undelivered records, interrupted promotions."""
    from flows.orchestration._console import console_logging

    console_logging()
    from apf_tasks.runs.reconcile import reconcile
    from flows.cli.registry._output import as_document, print_reconciled

    found = reconcile()
    print(as_document(found)) if as_json else print_reconciled(out, found)


COMMANDS = (promote, rollback, export, reconcile)
