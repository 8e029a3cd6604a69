"""A registered model as an ONNX file, kept only when it answers as the original does.

transformers' own exporter makes the graph: it knows what in its models torch.onnx cannot follow.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from apf_tasks.data.rows import read_rows
from apf_tasks.errors import ExportError
from apf_tasks.evaluation.predictor import Predictor
from apf_tasks.evaluation.registered.fine_tuned import load_fine_tuned
from apf_tasks.evaluation.registered.recorded_config import read_config
from apf_tasks.examples import Examples, token_table
from apf_tasks.family import Thresholds, get_family
from apf_tasks.params.base import Frozen
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.serving.onnx.card import onnx_card
from apf_tasks.serving.onnx.replay import Replay, batch_of, replay
from apf_tasks.tracking.past_runs import PREDICTIONS, artifact
from apf_tasks.tracking.registry import logged_version

logger = logging.getLogger("apf")

MODEL = "model.onnx"
RECORD = "apf.json"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
REPLAYED_ROWS = 128
"""First rows of the test; registration replays the first of the same."""
TRACED_EXAMPLES = 3
"""Examples that the graph is traced with: more than one, for an axis of length one is taken for a constant."""


class Exported(Frozen):
    """What was exported, and how it compares."""

    model: str
    """models:/NAME/VERSION"""
    folder: Path
    architecture: str
    """Class of the original."""
    bytes_original: int
    """Of the weights."""
    bytes_exported: int
    replay: Replay


def export_registered(uri: str, target: Path, force: bool = False) -> Exported:
    """Export the version that `uri` names into the folder `target`; a folder is written whole or not at all.

    Raises ExportError when the model cannot be exported or answers differently, RegistryError when there is none.
    """
    check_libraries()
    check_target(target, force)
    version = logged_version(uri)
    name, original, config = version.uri, version.folder, read_config(version.uri, version.config)
    check_exportable(name, config.family, original)
    rows = _replayed_rows(version.run_id, config.family)
    # float32 on the CPU on both sides: the difference is then that of the graph, not that of a precision
    exact = config.model_copy(update={"precision": "fp32"})
    network = load_fine_tuned(original, exact, RuntimeParams(device="cpu")).network
    with _folder(target, force) as folder:
        exported = export_network(name, network, config.settings, rows, folder, _weights(original))
        _describe(exported, network, config.family, config.settings, folder)
    return exported.model_copy(update={"folder": target})


def export_network(
    name: str, network: Predictor, settings: Thresholds, rows: pd.DataFrame, folder: Path, bytes_original: int
) -> Exported:
    """Write the graph of a network into `folder`, and replay `rows` through it. Raises ExportError."""
    logger.info("export     %s: tracing the graph", name)
    _trace(name, network, rows, folder)
    logger.info("replay     %d rows through the export and the original", len(rows))
    with _quiet():
        found = replay(network, settings, folder / MODEL, rows)
    return Exported(
        model=name,
        folder=folder,
        architecture=type(network.model).__name__,
        bytes_original=bytes_original,
        bytes_exported=sum(file.stat().st_size for file in folder.glob(f"{MODEL}*")),
        replay=found,
    )


def _trace(name: str, network: Predictor, rows: pd.DataFrame, folder: Path) -> None:
    """Write model.onnx, with batch and length open, by a trace of a few real examples."""
    from transformers.exporters import OnnxConfig, OnnxExporter  # type: ignore[attr-defined]

    columns = network.family.encode(rows.head(TRACED_EXAMPLES), network.base, network.label_names)
    examples = Examples(token_table(columns))
    chosen = np.resize(np.arange(len(examples)), TRACED_EXAMPLES)
    batch = batch_of(network, examples, chosen)
    network.model.train(False)
    network.model.config.use_cache = False  # the graph is one pass over a whole text
    # no longer than rows are cut to: tables of relative positions end somewhere, and the trace has to know where
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=network.base.max_tokens)}
    config = OnnxConfig(dynamic_shapes=dict.fromkeys(batch, axes), prefer_deferred_runtime_asserts_over_guards=True)
    try:
        with _quiet():
            exporter = OnnxExporter()  # type: ignore[no-untyped-call]
            exporter.export(network.model, dict(batch), config).save_pretrained(folder)
    except Exception as error:  # tracing fails in every way there is
        said = next((line for line in str(error).splitlines() if line.strip()), "nothing said")[:300]
        raise ExportError(
            f"ONNX export of {name}",
            f"a graph that torch can trace, from {type(network.model).__name__}",
            f"{type(error).__name__}: {said}",
            "Serve the model with `apf serve`; docs/SERVICE.md lists the architectures that export.",
        ) from error


def check_libraries() -> None:
    """Raises ExportError when the libraries of the extra are not installed."""
    for library in LIBRARIES:
        try:
            version(library)
        except PackageNotFoundError as error:
            raise ExportError("ONNX export", f"the library {library}", "none", "pip install 'apf[onnx]'.") from error


def check_exportable(name: str, family: FamilyParams, folder: Path) -> None:
    """Raises ExportError for a model whose answer is more than one forward pass."""
    writes = get_family(family).generates
    two_stacks = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder", False)
    if writes or two_stacks:
        found = "one that generates its answer token by token" if writes else "an encoder-decoder"
        do = f"Serve it with `apf serve {name.removeprefix('models:/')}`, or score a file with `apf predict`."
        raise ExportError(f"ONNX export of {name}", "a model that answers in one forward pass", found, do)


def check_target(target: Path, force: bool) -> None:
    """Raises ExportError for a target that exists, unless it is an older export that may be replaced."""
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    ours = (target / RECORD).is_file()
    if force and ours:
        return
    found = "an older export" if ours else "something else"
    do = "Add --force to replace it." if ours else "Choose another folder: --force only replaces an export."
    raise ExportError(f"--to {target}", "a folder that does not exist yet", found, do)


@contextlib.contextmanager
def _folder(target: Path, force: bool) -> Iterator[Path]:
    """A folder beside the target that takes its place at the end, or is taken away. Raises ExportError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.partial"):  # of an export that was killed
        number = left.suffixes[-2].removeprefix(".")
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    folder = target.parent / f".{target.name}.{os.getpid()}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        check_target(target, force)  # another export may have been quicker
        older = folder.with_suffix(".older.partial")
        if target.exists():
            target.rename(older)
        folder.rename(target)
        shutil.rmtree(older, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replayed_rows(run_id: str, family: FamilyParams) -> pd.DataFrame:
    """The first rows of the test, as its run recorded them, with the columns of a served row. Raises RegistryError."""
    rows = read_rows(artifact(run_id, PREDICTIONS)).head(REPLAYED_ROWS)
    return rows[list(get_family(family).example)].fillna("").astype(str).reset_index(drop=True)


def _weights(folder: Path) -> int:
    """Bytes of the weights of a model folder."""
    return sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".safetensors", ".bin"))


def _describe(
    exported: Exported, network: Predictor, family: FamilyParams, settings: Mapping[str, float], folder: Path
) -> None:
    """The tokenizer, what the outputs mean and how to use them, beside model.onnx."""
    network.base.tokenizer.save_pretrained(folder)
    names: dict[Any, str] = (network.model.config.id2label or {}) if network.label_names else {}
    record = {
        **exported.model_dump(mode="json", exclude={"folder"}),
        "family": family.model_dump(mode="json"),
        "labels": [names[i] for i in sorted(names)],
        "settings": dict(settings),
        "max_tokens": network.base.max_tokens,
        "pad_id": network.base.pad_id,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    card = onnx_card(exported.model, exported.replay, network, family, settings)
    (folder / "README.md").write_text(card, encoding="utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch, onnxscript and transformers say on their way is not for the person at the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
