"""Resumable training states on disk. A state is copied in memory; a thread writes the copy while training goes on.

Everything lies in `checkpoint/` in the folder of the training, which the store drops when the training is done:

    checkpoint/state-00000040/          one state; the rename to this name makes it valid
        .metadata, __0_0.distcp         its tensors, by torch.distributed.checkpoint: each rank writes what it has
        rest.pt                         what is no tensor, and the progress
    checkpoint/best-00000030.safetensors    see weights.py
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

import psutil
import torch
from pydantic import Field
from torch import distributed
from transformers import PreTrainedModel

from apf_tasks.cache.fingerprints import fsync
from apf_tasks.cache.store import CHECKPOINT_DIR
from apf_tasks.params.base import Frozen
from apf_tasks.runtime.ranks import current_ranks
from apf_tasks.runtime.sharding import is_dtensor
from apf_tasks.training.weights import drop_best_before, unique_weights

REST, NEW = "rest.pt", "state.new"
COPY_MEMORY_FACTOR = 1.25
"""A copy is made where this many times its size is free in memory; otherwise the training waits for the disk."""
TENSOR = "<tensor>"
"""Placeholder for a tensor that was removed."""
State = dict[str, torch.Tensor]
StatePath = tuple[Any, ...]
"""Keys from the outside in."""


class TrainerState(Frozen):
    """Everything of a training besides tensors. The step is the data position too."""

    step: int = 0
    best_step: int = 0
    best_scores: dict[str, float] = Field(default_factory=dict)
    validations_without_gain: int = 0
    train_seconds: float = 0
    waited_seconds: float = 0
    """Of these, until the rows of a step were there."""
    tokens: int = 0
    padded_tokens: int = 0
    initial_digests: dict[str, str] = Field(default_factory=dict)
    """Parameter name -> digest of its values before the first step."""
    stopped: bool = False
    """Early stopping has decided."""


class Checkpointer:
    """Writes the states of one training, one at a time. For all ranks at once.

    A thread copies the state while the next gradient is computed, for only the optimizer's step changes anything, and
    that waits for the copy. Where there is no room for one, it waits for the disk.
    """

    def __init__(self, out: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, sharded: bool) -> None:
        self.folder = out / CHECKPOINT_DIR
        self.model, self.optimizer, self.sharded = model, optimizer, sharded
        self.blocked_seconds = 0.0
        """In which training stood still."""
        self._copy: State = {}
        self._copied = Event()
        self._copied.set()
        self._group: Any = distributed.new_group(backend="gloo") if sharded else None  # apart from what training sends
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        steps = [optimizer, *getattr(optimizer, "parts", ())]
        self._hooks = [one.register_step_pre_hook(lambda *_: self._wait(self._copied.wait)) for one in steps]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """The state under way is written, whatever ends the training."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            for hook in self._hooks:
                hook.remove()

    def save_async(self, progress: TrainerState) -> None:
        """Have the state as it is now written. Waits for the one before; raises what that met."""
        self.wait()
        if self.sharded or current_ranks().first:
            state = _flatten({"model": unique_weights(self.model), "optimizer": self.optimizer.state_dict()})
            self._copied.clear()
            self._writing = self._thread.submit(self._copy_and_write, *state, progress)

    def wait(self) -> None:
        """Until the state under way is on disk. Raises what its writing met: OSError for a full disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._wait(writing.result)

    def _wait(self, until: Callable[[], Any]) -> None:
        began = time.perf_counter()
        until()
        self.blocked_seconds += time.perf_counter() - began

    def _copy_and_write(self, rest: Any, tensors: State, progress: TrainerState) -> None:
        try:
            if self._room_for(tensors):
                tensors = self._copies(tensors)
                self._copied.set()
            self._write(tensors, rest, progress)
        finally:
            self._copied.set()

    def _room_for(self, tensors: State) -> bool:
        need = sum(tensor.nbytes for tensor in tensors.values())
        return self._copy.keys() == tensors.keys() or psutil.virtual_memory().available >= COPY_MEMORY_FACTOR * need

    @torch.no_grad()
    def _copies(self, tensors: State) -> State:
        """The tensors as they are now, in the CPU's memory."""
        if self._copy.keys() != tensors.keys():
            self._copy = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        else:  # into memory that is there: several times as fast
            for name, tensor in tensors.items():
                self._copy[name].copy_(tensor.detach())
        return self._copy

    def _write(self, tensors: State, rest: Any, progress: TrainerState) -> None:
        """One state, renamed when it is whole; older ones are forgotten then."""
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        new = self.folder / NEW
        if current_ranks().first:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            with (new / REST).open("wb") as file:
                torch.save({"rest": rest, "progress": progress.model_dump_json()}, file)
                file.flush()
                os.fsync(file.fileno())
        if self._group is not None:
            distributed.barrier(self._group)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is distributed is no news
            save(tensors, storage_writer=FileSystemWriter(new), process_group=self._group, no_dist=not self.sharded)
        if current_ranks().first:
            _commit(self.folder, progress)


def _commit(folder: Path, progress: TrainerState) -> None:
    fsync(folder / NEW)
    shutil.rmtree(_state_folder(folder, progress.step), ignore_errors=True)  # of a killed process
    (folder / NEW).rename(_state_folder(folder, progress.step))
    fsync(folder)
    for older in _states(folder)[:-1]:
        shutil.rmtree(older)
    drop_best_before(folder.parent, progress.best_step)


def _state_folder(folder: Path, step: int) -> Path:
    return folder / f"state-{step:08d}"


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*"))


def load_checkpoint(out: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> TrainerState | None:
    """Put model and optimizer back to the newest state under `out`; None when there is none. For all ranks at once.

    How many ranks wrote it does not matter: each reads its part.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    found = _states(out / CHECKPOINT_DIR)
    if not found:
        return None
    kept: dict[str, Any] = torch.load(found[-1] / REST, weights_only=True)
    reader = FileSystemReader(found[-1])
    sizes = reader.read_metadata().state_dict_metadata
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    weights = unique_weights(model)
    tensors: State = {}

    def room(path: StatePath) -> torch.Tensor:
        name = _name(path)
        if path[0] == "model":
            tensors[name] = weights[path[1]]  # is read into the model itself
        else:
            tensors[name] = _room(sizes[name], parameters[path[2]] if path[1] == "state" else None)
        return tensors[name]

    state = _unflatten(kept["rest"], room)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(tensors, storage_reader=reader, no_dist=current_ranks().count == 1)
    optimizer.load_state_dict(state["optimizer"])
    return TrainerState.model_validate_json(kept["progress"])


def _room(stored: Any, like: torch.Tensor | None) -> torch.Tensor:
    """Memory for a stored tensor, divided as its parameter is."""
    if like is not None and is_dtensor(like) and like.shape == stored.size:
        return torch.empty_like(like.detach())
    return torch.empty(stored.size, dtype=stored.properties.dtype)


def _flatten(state: Any, path: StatePath = ()) -> tuple[Any, State]:
    """A nested state without its tensors, and these by where they stand.

    Tensors of other libraries' kinds (8-bit moments) stay, as copies.
    """
    if type(state) in (torch.Tensor, torch.nn.Parameter) or is_dtensor(state):
        return TENSOR, {_name(path): state}
    if isinstance(state, torch.Tensor):
        return _copy_of_another_kind(state), {}
    if not isinstance(state, (Mapping, list)):
        return state, {}
    keys: list[Any] = list(state) if isinstance(state, Mapping) else list(range(len(state)))
    parts = {key: _flatten(state[key], (*path, key)) for key in keys}
    tensors = {name: tensor for _, found in parts.values() for name, tensor in found.items()}
    rest = {key: part for key, (part, _) in parts.items()}
    return (rest if isinstance(state, Mapping) else list(rest.values())), tensors


def _copy_of_another_kind(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the CPU's memory of a tensor that is made of others. Not each of these kinds can be cloned."""
    names, how = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    inner = {name: getattr(tensor, name).to("cpu", copy=True) for name in names}
    made: torch.Tensor = type(tensor).__tensor_unflatten__(inner, how, tensor.shape, tensor.stride())  # type: ignore[attr-defined]
    return made


def _unflatten(rest: Any, tensor: Callable[[StatePath], torch.Tensor], path: StatePath = ()) -> Any:
    """The nested state again."""
    if isinstance(rest, str) and rest == TENSOR:
        return tensor(path)
    if isinstance(rest, dict):
        return {key: _unflatten(value, tensor, (*path, key)) for key, value in rest.items()}
    if isinstance(rest, list):
        return [_unflatten(value, tensor, (*path, key)) for key, value in enumerate(rest)]
    return rest


def _name(path: StatePath) -> str:
    return "/".join(map(str, path))
