"""Tensors without their numbers: which memory a program would take, in order, found by running it.

Tensors of real numbers are torch's FakeTensors, which know their shape and type alone. What is computed of token ids
and masks is computed: it decides shapes, and is small.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

KNOWN = 1 << 22
"""Most numbers of a tensor that is really computed."""
PASSING = ("activations", "logits", "workspace")
"""Kinds that come and go within a step."""
aten = torch.ops.aten
ASKING = (aten._local_scalar_dense.default, aten.allclose.default, aten.equal.default)
DEVICE = torch.ops.prim.device.default
"""Asked more often than all else together."""
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class MemoryTracker(TorchDispatchMode):
    """Writes down every storage that comes and goes under it, and what it is for."""

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = fake
        self.events: list[tuple[int, int]] = []
        """Number of a storage, and its bytes: negative when it goes."""
        self.kinds: list[str] = []
        """What each storage is for."""
        self.kind = "activations"
        """What those are for that come now, outside of a backward pass: there they are workspace."""
        self.vocabulary = 0
        """Length of the last dimension of logits; 0 where there are none."""
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is DEVICE:
            return args[0].fake_device
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if not any(isinstance(tensor, FakeTensor) for tensor in given):
            found = self._computed(func, args, kwargs, made=not given)
        elif func in ASKING:  # whatever is asked of numbers: they are fine
            return 1 if func is aten._local_scalar_dense.default and args[0].dtype != torch.bool else True
        else:
            if func in INDEXING:
                args = (args[0], _positions(args[1]), *args[2:])
            args, kwargs = tree_map_only(torch.Tensor, self._without_numbers, (args, kwargs))
            found = func(*args, **kwargs)
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self.note(tensor)
        return found

    def _computed(self, func: Any, args: Any, kwargs: Any, made: bool) -> Any:
        if made and (kwargs.get("dtype") or torch.get_default_dtype()).is_floating_point:
            return func(*args, **kwargs)
        with _disable_current_modes():
            found = func(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda t: t if t.numel() <= KNOWN else self._without_numbers(t), found)

    def _without_numbers(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self.fake.from_tensor(tensor)

    def note(self, tensor: torch.Tensor, kind: str | None = None) -> None:
        """Write down the storage of `tensor` if it is new; with a `kind`, that it is for this."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        alive = self._alive.get(key)
        if alive is not None and alive[0]() is storage:
            self.kinds[alive[1]] = kind or self.kinds[alive[1]]
            return
        if not size:
            return
        logits = self.vocabulary and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary
        number = len(self.kinds)
        passing = "workspace" if torch._C._current_graph_task_id() != -1 else self.kind
        self.kinds.append(kind or ("logits" if logits else passing))
        self.events.append((number, size))

        def gone(reference: weakref.ref[Any]) -> None:
            self.events.append((number, -size))
            if self._alive.get(key, (None, 0))[0] is reference:
                del self._alive[key]

        self._alive[key] = (weakref.ref(storage, gone), number)

    def peak(self, start: int, small: int = 0) -> Counter[str]:
        """Bytes of each kind when there was most, after event `start`; under "" those in activations and the like of at
        most `small` bytes each.
        """
        most = now = at = 0
        for i, (_, size) in enumerate(self.events):
            now += size
            if i >= start and now > most:
                most, at = now, i
        found: Counter[str] = Counter()
        for number, size in self.events[: at + 1]:
            found[self.kinds[number]] += size
            found[""] += size if abs(size) <= small and self.kinds[number] in PASSING else 0
        return found


def _positions(indices: Any) -> list[Any]:
    """Masks whose values are known as the positions they stand for: so the shape of the result is known."""
    found: list[Any] = []
    for index in indices:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            found.append(index)
            continue
        with _disable_current_modes():
            found += index.nonzero(as_tuple=True)
    return found


@contextmanager
def tracked() -> Iterator[MemoryTracker]:
    """Within the block new tensors of real numbers have none, and the tracker knows of all storages."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, MemoryTracker(fake) as tracker:
        yield tracker
