"""The weights of a model: each tensor once, the best so far on disk, and whether training moved all of them."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from apf_tasks.cache.store import CHECKPOINT_DIR
from apf_tasks.errors import ModelError
from apf_tasks.runtime.ranks import current_ranks
from apf_tasks.runtime.sharding import full_tensor, is_dtensor, load_model_state


def save_best(out: Path, network: PreTrainedModel, step: int) -> None:
    """Keep the weights of `step`, beside those of earlier steps. For all ranks at once."""
    weights = {name: full_tensor(tensor).contiguous() for name, tensor in unique_weights(network).items()}
    if not current_ranks().first:
        return
    (out / CHECKPOINT_DIR).mkdir(exist_ok=True)
    beside = out / CHECKPOINT_DIR / "best.new"
    save_file(weights, beside)
    beside.replace(_best_path(out, step))


def load_best(out: Path, network: PreTrainedModel, step: int) -> None:
    """Go back to the weights of `step`."""
    load_model_state(network, load_file(_best_path(out, step)), strict=False)  # tied weights are stored once


def drop_best_before(out: Path, step: int) -> None:
    """Forget earlier weights, once a checkpoint names those of `step` as the best: none can be asked for again."""
    for path in (out / CHECKPOINT_DIR).glob("best-*.safetensors"):
        if path < _best_path(out, step):
            path.unlink()


def _best_path(out: Path, step: int) -> Path:
    return out / CHECKPOINT_DIR / f"best-{step:08d}.safetensors"


def unique_weights(network: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The state with every shared tensor once."""
    kept: dict[int, str] = {}
    state = network.state_dict(keep_vars=True)
    for name, tensor in state.items():
        kept.setdefault(id(tensor) if is_dtensor(tensor) else tensor.data_ptr(), name)
    return {name: state[name].detach() for name in kept.values()}


def parameter_digests(network: PreTrainedModel) -> dict[str, str]:
    """Digest of each parameter's values: a tenth of a second instead of a second copy of the model."""
    return {
        name: blake2b(
            full_tensor(parameter.detach()).cpu().reshape(-1).view(torch.uint8).numpy().data, digest_size=8
        ).hexdigest()
        for name, parameter in network.named_parameters()
    }


def check_all_parameters_changed(network: PreTrainedModel, before: dict[str, str]) -> int:
    """How many parameters lie in tensors that training has changed. Raises ModelError unless these are all."""
    still = [name for name, digest in parameter_digests(network).items() if digest == before[name]]
    if still:
        found = f"{len(still)} unchanged tensors ({', '.join(still[:3])}, …)"
        do = "They got no gradient: check model.base and that train.learning_rate is not 0."
        raise ModelError("full-parameter training", "a change in every parameter tensor", found, do)
    return network.num_parameters()
