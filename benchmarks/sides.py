"""One training and evaluation of a case, in a process of its own.

    python -m benchmarks.sides ours|defaults|best|tuned|textbook|ceiling FOLDER
    python -m benchmarks.sides prepare FOLDER CASE ROWS PRECISION OVERRIDES-AS-JSON

FOLDER has what `prepare` wrote. Prints one JSON line of measures: useful tokens per second of training, rows per second
of evaluation, seconds from loading the base to the evaluated model, peak resident memory, and the validation score.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.job import Job, prepare, validation_loss

Measures = dict[str, float]


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    import torch

    from apf_tasks.runtime.devices import peak_memory_gib

    return peak_memory_gib(torch.device("cpu")) * 1024


def ours(job: Job) -> Measures:
    """The train stage as it is, without Prefect; then the evaluation of the model it wrote."""
    from apf_tasks.evaluation.predictor import load_predictor, metric_scores, predict_rows, row_statistics
    from apf_tasks.examples import Examples
    from apf_tasks.training.train import train_model

    params = job.params
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        trained = train_model(Path(folder), job.trial)
        whole = time.perf_counter() - started
        names = job.train.label_names
        network = load_predictor(trained.path / "model", job.model, params.family, names, params.runtime)
    rows, examples = job.rows("validation"), Examples.of(job.validation)
    started = time.perf_counter()
    predictions = predict_rows(network, examples, rows, trained.settings)
    seconds = time.perf_counter() - started
    statistics = row_statistics(network.family, network.family.reference(rows), predictions, names)
    learned = Examples.of(job.train)
    tokens = int(learned.lengths.sum()) + (job.train.supervised_tokens if network.base.is_encoder_decoder else 0)
    return {
        "tokens_per_second": tokens * params.train.epochs / trained.train_seconds,
        "evaluated_per_second": len(rows) / seconds,
        "whole_seconds": whole,
        "validation_loss": validation_loss(job, network.model),
        params.metric: metric_scores(network.family, statistics)[params.metric],
    }


def main(side: str, folder: Path, *options: str) -> None:
    """Run one side and print its measures."""
    if side == "prepare":
        from benchmarks.cases import CASES

        case, rows, precision, changes = options
        prepare(CASES[case], folder, int(rows), precision, json.loads(changes))
        return
    job = Job.read(folder)
    if side == "ceiling":
        from benchmarks.ceiling import reached_at_most

        print(json.dumps(reached_at_most(job)))
        return
    if side == "ours":
        measures = ours(job)
    else:
        from benchmarks.trainer_side import trainer

        measures = trainer(job, side)
    print(json.dumps(measures | {"peak_memory_mib": peak_memory_mib()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
