"""The commands of a model in service: servers, retraining, serving."""

from __future__ import annotations

import json
import math
from typing import Annotated

import typer

from flows.cli._app import AsJson, Overrides, ParamsFile, out


def retrain(
    params: ParamsFile,
    overrides: Overrides = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Evaluate the gate even if nothing is new.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what is new.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train again if data, params or code have changed, and let the gate decide on promotion."""
    from apf_tasks.params.file import parse_overrides
    from apf_tasks.runs.experiments import load_params
    from flows.orchestration._console import console_logging
    from flows.orchestration.settings import warm_up_servers

    load_params(params, overrides)
    console_logging()
    warm_up_servers()
    from flows.cli.registry._output import print_retrained
    from flows.retrain import retrain

    found = retrain(params, parse_overrides(overrides or ()), refresh, dry_run)
    if as_json:
        print(json.dumps(found.model_dump(mode="json")))
    else:
        print_retrained(out, found)


def drift(
    params: ParamsFile,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: drift.psi=0.1", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare new rows with those that the champion was trained on."""
    from apf_tasks.params.file import parse_overrides
    from apf_tasks.runs.experiments import load_params
    from flows.orchestration._console import console_logging
    from flows.orchestration.settings import warm_up_servers

    load_params(params, overrides)
    console_logging()
    warm_up_servers()
    from flows.cli.registry._output import print_drift
    from flows.drift import drift

    report = drift(params, parse_overrides(overrides or ()))
    if as_json:
        print(json.dumps(report.model_dump(mode="json", exclude={"path"})))
    else:
        print_drift(out, report)


def serve(
    model: Annotated[str, typer.Argument(help="NAME@ALIAS or NAME/VERSION of a registered model.")],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5001,
    host: Annotated[str, typer.Option(help="Address to listen on: 0.0.0.0 for all clients.")] = "127.0.0.1",
) -> None:
    """Serve a registered model over HTTP by MLflow's server, until Ctrl-C."""
    from apf_tasks.serving.server import serve_model

    serve_model(out, model, host, port)


def ui() -> None:
    """Open MLflow's and Prefect's UIs over what was recorded, until Ctrl-C."""
    from flows.cli.service._servers import serve

    serve()


def up() -> None:
    """Start Prefect, MLflow, the deployments of prefect.yaml and a worker for them, until Ctrl-C."""
    from flows.cli.service._servers import serve

    serve(work=True)


def join(
    patience: Annotated[float, typer.Option(help="Exit after this many minutes without a request.")] = math.inf,
) -> None:
    """Join trainings with runtime.nodes on this machine, until Ctrl-C. It has to share mlruns with the first one."""
    from apf_tasks.cache import store
    from apf_tasks.runtime.launch import join_calls
    from flows.orchestration._console import console_logging

    console_logging()
    out.print(f"waits for requests in {store.root() / 'nodes'}")
    out.print(f"joined {join_calls(patience * 60)}")


COMMANDS = (retrain, drift, serve, ui, up, join)
