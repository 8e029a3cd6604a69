"""Operations of torch that are computed by functions of ours for a while."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def replaced_kernel(operation: str, function: Callable[..., Any], dispatch_key: str) -> Iterator[None]:
    """Within the block torch calls `function` where it would compute `aten::operation`."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            # torch 2.11 warns of the first kernel of a process that is replaced; here it is meant
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            library.impl(operation, function, dispatch_key)  # type: ignore[no-untyped-call]
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]
