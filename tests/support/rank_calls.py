"""What ranks are asked to do in tests: a module that they can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from apf_tasks.errors import ParamsError
from apf_tasks.params.train import TrainParams


def dies() -> None:
    """One rank is killed, the other waits for ever."""
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


def raises() -> None:
    """All ranks find the same mistake."""
    raise ParamsError("runtime.device", "a device", "none", "Nothing.")


def learns(cases: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Loss, gradients and predictions of each family and model, which ranks divide among them."""
    import torch

    from apf_tasks.data.batching import collate
    from apf_tasks.family import get_family
    from apf_tasks.models.pretrained import load_base
    from apf_tasks.params.family import family_params
    from apf_tasks.params.model import ModelParams
    from apf_tasks.runtime.ranks import current_ranks
    from apf_tasks.runtime.sharding import full_tensor, shard, unsharded
    from tests.support.tiny import review_rows

    found, ranks, device = [], current_ranks(), torch.device("cpu")
    for name, folder in cases:
        short = {"max_new_tokens": 4, "prompt": "{source}"} if name == "translation" else {}
        family = get_family(family_params(name).model_validate({"name": name} | short))
        params = ModelParams(base=str(folder), max_tokens=48)
        base, model = load_base(folder, params), family.load_model(folder, params, ()).eval()
        rows = pd.DataFrame(review_rows(4)).assign(source=lambda r: r["text"], target=lambda r: r["text"].str[:20])
        columns = {n: v for n, v in family.encode(rows, base, ()).items() if n not in ("truncated", "row")}
        if family.mask is not None:
            columns = family.mask(columns, base, (1, 2))
        batch = collate(columns, base.pad_id, device)
        if ranks.count > 1:
            shard(model, ranks, device)
        for _ in range(2):  # what a pass leaves behind does not harm the next
            model.zero_grad()
            loss = family.loss(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad(), unsharded(model):
                said = family.predict(model, batch, base, ())
        gradients = {n: full_tensor(p.grad).numpy() for n, p in model.named_parameters() if p.grad is not None}
        found.append({"loss": loss.item(), "gradients": gradients, "said": [piece["prediction"] for piece in said]})
    return found


class Trajectory(NamedTuple):
    """A short training, and how its steps are cut."""

    family: str
    folder: Path
    dropout: float = 0.0
    padded: bool = False
    tokens: int = 200
    """Of a forward pass at most."""
    memory: int = 10**6
    """Tokens of a forward pass for which the last rank has memory."""
    bf16: bool = False


def trajectories(cases: list[Trajectory]) -> list[list[float]]:
    """The losses of each training, by these ranks together."""
    return [_losses(case) for case in cases]


def _losses(case: Trajectory) -> list[float]:
    import pandas as pd
    import torch

    from apf_tasks.evaluation.predictor import Placement, Predictor
    from apf_tasks.examples import Examples, token_table
    from apf_tasks.family import get_family
    from apf_tasks.models.pretrained import load_base
    from apf_tasks.params.family import family_params
    from apf_tasks.params.model import ModelParams
    from apf_tasks.params.train import RuntimeParams, TrainParams
    from apf_tasks.runtime.ranks import current_ranks
    from apf_tasks.training.loop import train_steps
    from apf_tasks.training.optim.optimizers import optimizer_of
    from apf_tasks.training.padding_free import try_padding_free
    from tests.support.tiny import review_rows

    names, ranks = ("negative", "positive"), current_ranks()
    family, params = get_family(family_params(case.family)(name=case.family)), ModelParams(base="here", max_tokens=48)
    torch.manual_seed(0)
    base, model = load_base(case.folder, params), family.load_model(case.folder, params, names)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = case.dropout

    def forget(module: torch.nn.Module, given: Any, named: dict[str, Any]) -> None:
        ids = given[0] if given else named.get("input_ids")
        if ranks.index == ranks.count - 1 and ids is not None and ids.numel() > case.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.base_model.register_forward_pre_hook(forget, with_kwargs=True)
    place = Placement(torch.device("cpu"), torch.bfloat16 if case.bf16 else torch.float32, ranks)
    network = Predictor(model, base, family, names, place)
    examples = Examples(token_table(family.encode(pd.DataFrame(review_rows(44)), base, names)))
    train = TrainParams(learning_rate=1e-3, batch_size=16, epochs=2, micro_batch_tokens=case.tokens)
    free = None if case.padded else try_padding_free(network, examples)
    optimizer = optimizer_of(model, train, RuntimeParams())
    return [step.loss for step in train_steps(network, optimizer, examples, train, free=free)]


def runs_out_of_memory() -> None:
    """One rank has no memory for its pass, as the loop says it; the other waits for it in the sum of the step."""
    from apf_tasks.errors import ModelError
    from apf_tasks.runtime.ranks import current_ranks

    ranks = current_ranks()
    if not ranks.first:
        found = "CUDA out of memory. Tried to allocate 2.00 GiB"
        raise ModelError("training", "a pass that fits into memory", found, "Write runtime.activations=recompute.")
    ranks.all_reduce_sum([1.0])


def steps(folder: Path, params: TrainParams, count: int) -> list[float]:
    """Losses of the first steps of a training, on as many ranks as there are."""
    import torch

    from apf_tasks.evaluation.predictor import load_predictor
    from apf_tasks.examples import Examples, token_table
    from apf_tasks.params.family import FamilyParams
    from apf_tasks.params.model import ModelParams
    from apf_tasks.params.train import RuntimeParams
    from apf_tasks.training.loop import train_steps
    from apf_tasks.training.optim.optimizers import optimizer_of
    from tests.support.tiny import review_rows

    names = ("negative", "positive")
    torch.manual_seed(1)
    model, runtime = ModelParams(base=str(folder), max_tokens=64), RuntimeParams(device="cpu", precision="fp32")
    network = load_predictor(folder, model, FamilyParams(name="sentiment"), names, runtime)
    rows = pd.DataFrame(review_rows(40))
    examples = Examples(token_table(network.family.encode(rows, network.base, names)))
    with torch.compiler.set_stance("force_eager"):
        loop = train_steps(network, optimizer_of(network.model, params, runtime), examples, params)
        return [next(loop).loss for _ in range(count)]
