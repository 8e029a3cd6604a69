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

PARAMS = """\
# An experiment: 240 short reviews, a tiny BERT from random weights. It shows in a minute that everything works.
# For your own rows: `apf new sentiment my_reviews.csv` writes such a file, and docs/PARAMS.md lists every key.
family: sentiment

data:
  source: params/data/reviews.jsonl

split:
  validation_fraction: 0.2
  test_fraction: 0.2
  near_duplicate_similarity: # the rows are made to be alike

model: # instead: base: bert-base-uncased, a local folder, or models:/NAME@champion
  init: scratch
  architecture: bert
  sizes: {hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 128}
  max_tokens: 48

tokenizer:
  train: wordpiece
  vocab_size: 400

train:
  epochs: 8
  batch_size: 16

search: # every combination is trained; validation chooses
  space:
    train.learning_rate: [2e-3, 1e-3]

test:
  resamples: 500
"""

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
    rows = INSTALLED / "example" / "reviews.jsonl"
    docs = INSTALLED / "docs"
    if not rows.is_file():
        rows, docs = CHECKOUT / "params" / "smoke" / "data" / "sentiment.jsonl", CHECKOUT / "docs"
    texts = {
        Path("params/example.yaml"): PARAMS,
        Path("params/data/reviews.jsonl"): rows.read_text(encoding="utf-8"),
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
