"""`apf init`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from apf_tasks.errors import ParamsError
from flows.cli._app import out

PACKAGE = __name__.partition(".")[0]
INSTALLED = Path(__file__).parents[2]
CHECKOUT = INSTALLED.parent

PREFECT = """\
# Deployments: `apf up` makes them, and starts a worker. Then, for example:
#   prefect deployment run retrain/example --watch
name: apf
definitions:
  pool: &pool {{name: local}}

deployments:
  - name: example
    entrypoint: {package}.fine_tune.fine_tune
    description: Fine-tune every parameter, choose on validation, report once on test.
    parameters: {{params: example}}
    work_pool: *pool
  - name: example
    entrypoint: {package}.retrain.retrain
    description: Train again when something has changed, and let the gate decide who is champion.
    parameters: {{params: example}}
    work_pool: *pool
    # every night at three; asleep until `prefect deployment schedule resume retrain/example ID`
    schedules: [{{cron: "0 3 * * *", timezone: UTC, active: false, slug: nightly}}]
"""

IGNORE = "mlruns/\n"


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; the working folder when empty.")] = Path(),
) -> None:
    """Start a folder of your own: an example that runs, deployments for it, and the documents."""
    example, docs = INSTALLED / "example", INSTALLED / "docs"
    if not example.is_dir():
        example, docs = CHECKOUT / "params" / "smoke", CHECKOUT / "docs"
    params = (example / "sentiment.yaml").read_text(encoding="utf-8")
    texts = {
        Path("params/example.yaml"): params.replace("params/smoke/data/sentiment.jsonl", "params/data/reviews.jsonl"),
        Path("params/data/reviews.jsonl"): (example / "data" / "sentiment.jsonl").read_text(encoding="utf-8"),
        Path("prefect.yaml"): PREFECT.format(package=PACKAGE),
        Path(".gitignore"): IGNORE,
    }
    taken = [str(folder / name) for name in (*texts, Path("docs")) if (folder / name).exists()]
    if taken:
        do = "Name another folder, or move them away. Nothing was written."
        raise ParamsError("apf init", "a folder without these names", ", ".join(taken), do)
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        out.print(f"wrote {folder / name}", highlight=False)
    shutil.copytree(docs, folder / "docs", ignore=shutil.ignore_patterns("images"))
    out.print(f"wrote {folder / 'docs'}", highlight=False)
    first = "" if folder == Path() else f"  cd {folder}\n"
    out.print(f"\nNext:\n{first}  apf check example\n  apf run example", markup=False, highlight=False)
