"""The same training on both sides: this project's train stage, and Hugging Face's Trainer. One process per training.

    python -m benchmarks.sides ours|trainer|trainer_default FOLDER

FOLDER has job.json (the base folder, epochs, batch size, learning rate, seed) and the tokenized splits. Prints one
JSON line: useful tokens per second of training, peak resident memory, validation accuracy.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(job: dict[str, Any]) -> dict[str, float]:
    """The train stage as it is, without Prefect."""
    from apf_tasks.artifacts import TokenizedSplit
    from apf_tasks.params import FamilyParams, ModelParams, RuntimeParams, TrainParams
    from apf_tasks.training import train_model

    train, validation = (TokenizedSplit.model_validate(job[name]) for name in ("train", "validation"))
    with tempfile.TemporaryDirectory() as folder:
        trained = train_model(
            Path(folder),
            train,
            validation,
            ModelParams(base=job["base"], max_tokens=job["max_tokens"]),
            FamilyParams(name="sentiment"),
            TrainParams(evaluate_every_epochs=job["params"]["epochs"], **job["params"]),
            RuntimeParams(precision="fp32"),
            "accuracy",
        )
    return {"tokens_per_second": trained.tokens_per_second, "accuracy": trained.scores["accuracy"]}


def trainer(job: dict[str, Any], strategy: str) -> dict[str, float]:
    """Trainer doing the same work, with dynamic padding, fused AdamW and the sampling `strategy`."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from apf_tasks.artifacts import TokenizedSplit
    from apf_tasks.batching import Examples

    params = job["params"]
    set_seed(params["seed"])
    sets = {}
    for name in ("train", "validation"):
        table = Examples.of(TokenizedSplit.model_validate(job[name])).table
        ids = table.column("input_ids").to_pylist()
        labels = [label[0] for label in table.column("labels").to_pylist()]
        sets[name] = Dataset.from_dict({"input_ids": ids, "labels": labels})
    tokens = sum(len(row) for row in sets["train"]["input_ids"]) * params["epochs"]
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    model = AutoModelForSequenceClassification.from_pretrained(job["base"], num_labels=2, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=params["batch_size"],
            per_device_eval_batch_size=64,
            num_train_epochs=params["epochs"],
            learning_rate=params["learning_rate"],
            weight_decay=0.01,
            warmup_steps=0.06,
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            train_sampling_strategy=strategy,
            eval_strategy="no",
            save_strategy="no",
            logging_steps=50,
            report_to="none",
            disable_tqdm=True,
            seed=params["seed"],
            use_cpu=not torch.cuda.is_available(),
        )
        hf = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), sets["train"], sets["validation"])
        started = time.perf_counter()
        hf.train()
        seconds = time.perf_counter() - started
        logits = hf.predict(sets["validation"]).predictions
    accuracy = float((np.argmax(logits, -1) == np.array(sets["validation"]["labels"])).mean())
    return {"tokens_per_second": tokens / seconds, "accuracy": accuracy}


def main(side: str, folder: Path) -> None:
    """Run one side and print its measures."""
    job = json.loads((folder / "job.json").read_text())
    strategies = {"trainer": "group_by_length", "trainer_default": "random"}
    measures = ours(job) if side == "ours" else trainer(job, strategies[side])
    print(json.dumps(measures | {"peak_memory_mib": peak_memory_mib()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
