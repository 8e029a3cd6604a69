"""Which architectures export to ONNX, and how far the export is from the original: docs/ONNX.md is what this prints.

    OMP_NUM_THREADS=1 python -m benchmarks.onnx_architectures [--layers 2] [--hidden 64] [--only bert] > docs/ONNX.md

Models with random weights, as large as those of a trained network (outputs of about 1, positions and masks matter), are
exported and replayed by the same code as `apf export`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from apf_tasks.errors import ApfError
from apf_tasks.evaluation.predictor import Predictor, load_predictor
from apf_tasks.examples import Examples, token_table
from apf_tasks.params.family import FamilyParams, family_params
from apf_tasks.params.model import ModelParams, TokenizerParams
from apf_tasks.params.train import RuntimeParams
from apf_tasks.serving.onnx.export import Exported, export_network
from apf_tasks.serving.onnx.replay import TOLERANCE, batch_of

ENCODERS = ("bert", "roberta", "distilbert", "deberta-v2", "electra", "modernbert")
DECODERS = ("gpt2", "qwen2", "qwen3", "llama")
CASES: Mapping[str, dict[str, Any]] = {
    "label": {"name": "sentiment"},
    "pairs, labels": {"name": "sentiment", "target": "labels", "pairs": True},
    "score": {"name": "sentiment", "target": "score", "score_range": (0, 5)},
    "ner": {"name": "ner", "words": "whitespace"},
    "question_answering": {"name": "question_answering"},
    "masked_lm": {"name": "masked_lm"},
    "causal_lm": {"name": "causal_lm"},
}
TOKENIZERS = {"bert": "wordpiece", "roberta": "bpe", "causal": "bpe"}
LABELS = ("one", "other", "third")
MAX_TOKENS = 64
ROWS = 24


def rows_of(count: int) -> pd.DataFrame:
    """Texts of different lengths, with all columns that a served row may have."""
    words = re.findall(r"\w+", "the bridge was opened in May and closed when nobody paid for the old stones any more")
    texts = [" ".join(words[(i * k) % len(words)] for k in range(1, 3 + (5 * i) % 29)) for i in range(1, count + 1)]
    return pd.DataFrame(
        {"text": texts, "text_pair": texts[::-1], "context": texts, "question": [t.split(" ")[0] for t in texts]}
    )


def base(folder: Path, architecture: str, hidden: int, layers: int) -> Path:
    """A model folder with weights of the size that training gives them: outputs of a layer as large as its inputs."""
    from apf_tasks.models.scratch import random_model, save_base
    from apf_tasks.models.tokenizer import train_tokenizer
    from apf_tasks.params.architectures import convention

    sizes = {"hidden_size": hidden, "num_layers": layers, "num_heads": hidden // 16, "intermediate_size": 4 * hidden}
    model = ModelParams(init="scratch", architecture=architecture, sizes=sizes, max_tokens=MAX_TOKENS)
    kind = TokenizerParams.model_validate({"train": TOKENIZERS[convention(architecture)], "vocab_size": 400})
    words = train_tokenizer(rows_of(200)["text"].tolist(), kind, architecture)
    save_base(random_model(model, words), words, folder)
    return folder


def network_of(folder: Path, family: FamilyParams) -> Predictor:
    """The model in `folder` with the head of a family."""
    runtime = RuntimeParams(device="cpu", precision="fp32")
    network = load_predictor(folder, ModelParams(base=str(folder), max_tokens=MAX_TOKENS), family, LABELS, runtime)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in network.model.parameters():
            if tensor.ndim == 2:
                torch.nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
    return network


def family_of(case: str) -> FamilyParams:
    """The options of a case."""
    return family_params(CASES[case]["name"]).model_validate(CASES[case])


def served_rows(network: Predictor) -> pd.DataFrame:
    """Rows as they are served."""
    return rows_of(ROWS)[list(network.family.example)]


def tried(folder: Path, network: Predictor) -> Exported:
    """The network exported into `folder` and replayed. Raises ApfError."""
    folder.mkdir()
    return export_network("random weights", network, {}, served_rows(network), folder, 0)


def without_mask(network: Predictor) -> float:
    """How far the outputs are from what they would be if padding were read: what a wrong graph looks like."""
    columns = network.family.encode(served_rows(network), network.base, network.label_names)
    examples = Examples(token_table(columns))
    batch = batch_of(network, examples, torch.arange(len(examples)).numpy())
    with torch.inference_mode():
        right, wrong = (
            network.model(**batch | {"attention_mask": mask}).logits
            for mask in (batch["attention_mask"], torch.ones_like(batch["attention_mask"]))
        )
    return float((right - wrong).abs().max())


def line(architecture: str, hidden: int, layers: int) -> str:
    """One row of the table: the largest difference per case, or why there is none."""
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = base(Path(scratch) / "base", architecture, hidden, layers)
        mask = f"{without_mask(network_of(folder, family_of('label'))):.1g}"
        for at, case in enumerate(CASES):
            print(f"{architecture}: {case}", file=sys.stderr)
            try:
                found = tried(Path(scratch) / str(at), network_of(folder, family_of(case))).replay
                alike = (found.alike, found.same_decisions) == (found.rows, found.decisions)
                cells.append(f"{found.largest_difference:.0e}" + ("" if alike else " (answers differ)"))
            except ApfError as error:
                print(error, file=sys.stderr)
                cells.append("no head" if "Unrecognized configuration" in str(error) else "refused")
    return f"| {architecture} | " + " | ".join([*cells, mask]) + " |"


def page(architectures: list[str], hidden: int, layers: int) -> str:
    """The whole page."""
    head = f"""# Which architectures export to ONNX

`apf export` was tested on models with {layers} layers of {hidden} units and random weights. Numbers are the largest
difference of any output between onnxruntime and torch over {ROWS} rows in several shapes; {TOLERANCE:g} is allowed.
The last column is the error in a label's logits if the graph ignored the padding mask.

    OMP_NUM_THREADS=1 python -m benchmarks.onnx_architectures --layers {layers} --hidden {hidden} > docs/ONNX.md

"""
    names = [*CASES, "without the mask"]
    table = [f"| architecture | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    return head + "\n".join([*table, *(line(name, hidden, layers) for name in architectures)])


def main() -> None:
    """Parse, try, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--only", default=",".join((*ENCODERS, *DECODERS)))
    asked = parser.parse_args()
    print(page(asked.only.split(","), asked.hidden, asked.layers))


if __name__ == "__main__":
    main()
