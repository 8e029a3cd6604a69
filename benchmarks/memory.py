"""Predicted and measured peak memory of real trainings on a CPU: docs/MEMORY.md is what this prints.

python -m benchmarks.memory > docs/MEMORY.md
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

MIB = 2**20
APART = "MALLOC_MMAP_THRESHOLD_"
HEAD = Path(__file__).with_name("memory.md")
"""What stands above the table."""


@dataclass(frozen=True)
class Case:
    """One training: two forward passes a step."""

    architecture: str
    family: str
    length: int
    rows: int
    """Of a forward pass."""
    optimizer: str = "adamw"
    precision: str = "fp32"
    activations: str = "keep"
    step_in_backward: bool = False
    apart: bool = True
    """Whether glibc is told to give the memory of large tensors back at once."""
    hidden: int = 320
    layers: int = 4
    vocabulary: int = 30000

    @property
    def how(self) -> str:
        """What else is special."""
        told = ["step in backward"] if self.step_in_backward else []
        told += [self.activations] if self.activations != "keep" else []
        return ", ".join(told + ([] if self.apart else ["glibc's heap"]))


CASES = (
    Case("bert", "sentiment", 128, 16, layers=6),
    Case("bert", "sentiment", 512, 4, activations="recompute"),
    Case("bert", "sentiment", 64, 32, "adafactor", hidden=448),
    Case("roberta", "masked_lm", 128, 16, "sgd"),
    Case("roberta", "sentiment", 64, 32, step_in_backward=True, hidden=512),
    Case("electra", "sentiment", 256, 8),
    Case("gpt2", "causal_lm", 128, 16, activations="selective"),
    Case("gpt2", "causal_lm", 512, 4, "adafactor"),
    Case("qwen2", "causal_lm", 128, 16),
    Case("llama", "causal_lm", 64, 16, "sgd", precision="bf16"),
    Case("t5", "summarization", 128, 16),
    Case("bart", "summarization", 64, 32, "adafactor"),
    Case("bart", "summarization", 128, 16),
    Case("bert", "sentiment", 128, 16, layers=6, apart=False),
    Case("gpt2", "causal_lm", 512, 4, "adafactor", apart=False),
    Case("bart", "summarization", 128, 16, apart=False),
)


def network_of(case: Case) -> Any:
    """A model of the case with random weights and the head of its family; only what training needs of a base."""
    import torch
    import transformers

    from apf_tasks.evaluation.predictor import Placement, Predictor
    from apf_tasks.family import get_family
    from apf_tasks.params.architectures import _values, config_class
    from apf_tasks.params.family import family_params

    heads = {"sentiment": "SequenceClassification", "masked_lm": "MaskedLM", "causal_lm": "CausalLM"}
    sizes = {"hidden_size": case.hidden, "num_layers": case.layers, "num_heads": case.hidden // 64}
    values = _values(case.architecture, sizes) | {"vocab_size": case.vocabulary, "pad_token_id": 0}
    config = config_class(case.architecture)(**values)
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    auto = getattr(transformers, f"AutoModelFor{heads.get(case.family, 'Seq2SeqLM')}")
    model = auto.from_config(config, dtype=torch.float32)
    family = replace(get_family(family_params(case.family).model_validate({"name": case.family})), draw=None)

    class Base:
        max_tokens = case.length
        pad_id = 0

    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    return Predictor(model, Base(), family, ("a", "b"), Placement(torch.device("cpu"), dtype))  # type: ignore[arg-type]


def examples_of(case: Case) -> Any:
    """Random tokens for two forward passes."""
    import numpy as np

    from apf_tasks.examples import Examples, token_table

    random = np.random.default_rng(0)
    ids = random.integers(5, case.vocabulary, (2 * case.rows, case.length)).tolist()
    if case.step_in_backward:
        ids = ids[: case.rows]
    labels = {
        "sentiment": [[i % 2] for i in range(len(ids))],
        "causal_lm": ids,
        "masked_lm": [[token if i % 7 == 0 else -100 for i, token in enumerate(row)] for row in ids],
        "summarization": [row[: case.length // 2] for row in ids],
    }
    return Examples(token_table({"input_ids": ids, "labels": labels[case.family]}))


def params_of(case: Case) -> tuple[Any, Any]:
    """How the case trains and runs."""
    from apf_tasks.params.train import RuntimeParams, TrainParams

    told = {"optimizer": case.optimizer, "step_in_backward": case.step_in_backward, "epochs": 1}
    told |= {"max_grad_norm": None} if case.step_in_backward else {}
    told |= {"micro_batch_tokens": case.rows * case.length, "batch_size": 2 * case.rows}
    runtime = {"device": "cpu", "precision": case.precision, "activations": case.activations}
    return TrainParams.model_validate(told), RuntimeParams.model_validate(runtime)


def predicted(case: Case) -> dict[str, Any]:
    """Bytes by part, and how long it took."""
    from apf_tasks.planning.memory import predict_step

    started = time.perf_counter()
    memory = predict_step(lambda: network_of(case), examples_of(case), *params_of(case), "cpu")
    return asdict(memory) | {"total": memory.total, "seconds": time.perf_counter() - started}


def measured(case: Case) -> dict[str, Any]:
    """Peak of the process in bytes over two steps that really train, without what loading left."""
    import torch

    from apf_tasks.runtime.devices import peak_memory_gib, reset_peak_memory
    from apf_tasks.training.loop import train_steps
    from apf_tasks.training.state import set_up

    params, runtime = params_of(case)
    params = params.model_copy(update={"epochs": 2})
    network, examples = network_of(case), examples_of(case)
    _, optimizer = set_up(network, examples, params, runtime)
    reset_peak_memory(torch.device("cpu"))
    for _ in train_steps(network, optimizer, examples, params):
        pass
    peak = peak_memory_gib(torch.device("cpu")) * 2**30
    return {"total": int(peak), "parameters": network.model.num_parameters()}


def in_a_process(what: Callable[[Case], dict[str, Any]], case: Case) -> dict[str, Any]:
    """The answer of a process that does nothing else: a fork of this one, which has computed nothing."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(what, case).result()


def row(case: Case, said: dict[str, Any], found: dict[str, Any]) -> str:
    """A line of the table."""
    tensors = (said["total"] - said["libraries"]) / MIB
    cells = [case.architecture, case.family, f"{found['parameters'] / 1e6:.0f} M", case.optimizer, case.precision]
    cells += [f"{case.rows} × {case.length}", case.how, f"{tensors:,.0f}", f"{said['total'] / MIB:,.0f}"]
    cells += [f"{found['total'] / MIB:,.0f}", f"{said['total'] / found['total']:.2f}"]
    rest = (found["total"] - said["libraries"]) / MIB
    return "| " + " | ".join([*cells, f"{tensors / rest:.2f}", f"{said['seconds']:.0f}"]) + " |"


def rows(apart: bool) -> None:
    """Print the lines of all such cases."""
    import transformers

    from apf_tasks.models import pretrained
    from apf_tasks.planning import memory

    assert memory
    assert pretrained
    for name in ("AutoModelForSequenceClassification", "AutoModelForSeq2SeqLM"):
        getattr(transformers, name)
    for case in CASES:
        if case.apart == apart:
            print(row(case, in_a_process(predicted, case), in_a_process(measured, case)), flush=True)


def page() -> None:
    """Print the whole page; what glibc does is settled when a process starts."""
    print(HEAD.read_text(encoding="utf-8"), end="", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != APART} | {"OMP_NUM_THREADS": "1"}
    for told in ({APART: str(MIB)}, {}):
        subprocess.run([sys.executable, "-m", "benchmarks.memory", "rows"], env=environment | told, check=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["rows"]:
        rows(APART in os.environ)
    else:
        page()
