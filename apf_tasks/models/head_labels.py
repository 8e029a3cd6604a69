"""Which row of a base's classification head is which label: its own names decide, not the order of the data."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN_NAMES = 6
_UNNAMED = re.compile(r"LABEL_\d+")
"""What transformers calls labels that nobody named."""

Rows = tuple[int | None, ...]


def head_rows(base: Mapping[int, str], ours: Sequence[str]) -> Rows:
    """For each of our labels its row in the base's head, or None: by name, else by the number that our label is.

    Upper and lower case tell names apart only where they have to. Labels without names are taken in their order.
    """
    exact = {str(name): row for row, name in base.items()}
    times = Counter(name.casefold() for name in exact)
    loose = {name.casefold(): row for name, row in exact.items() if times[name.casefold()] == 1}
    found = tuple(exact.get(name, loose.get(name.casefold())) for name in ours)
    if any(row is not None for row in found):
        return found
    numbers = [int(name) for name in ours if name.isdecimal() and int(name) in base]
    if len(numbers) == len(ours) == len(set(numbers)):
        return tuple(numbers)
    if len(base) == len(ours) and all(_UNNAMED.fullmatch(str(name)) for name in base.values()):
        return tuple(sorted(base))
    return found


def describe(base: Mapping[int, str], ours: Sequence[str], rows: Rows) -> str:
    """What became of the base's labels, in one line; "" where the base has our labels in our order."""
    if list(base.values()) == list(ours):
        return ""
    kept = sum(row is not None for row in rows)
    new = [name for name, row in zip(ours, rows, strict=True) if row is None]
    left = [str(name) for row, name in base.items() if row not in rows]
    text = f"{kept} of {len(ours)} labels have a row in the head of the base"
    pairs = [f"{base[row]} → {name}" for name, row in zip(ours, rows, strict=True) if row is not None]
    if kept and any(str(base[row]) != name for name, row in zip(ours, rows, strict=True) if row is not None):
        text += f", whose labels are named otherwise: {_shown(pairs)}"
    elif kept and list(rows) != sorted(base):
        text += ", taken by name"
    text += f"; drawn new: {_shown(new)}" if new else ""
    return text + (f"; not used of the base: {_shown(left)}" if left else "")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {len(names) - SHOWN_NAMES} more" * (len(names) > SHOWN_NAMES))


def head_parameters(network: PreTrainedModel) -> list[str]:
    """Names of the parameters that have a row for each label: those whose size follows the number of labels."""
    import torch

    config = copy.deepcopy(network.config)
    config.num_labels = len(config.id2label or ()) + 1
    with torch.device("meta"):
        wider = {name: p.shape for name, p in type(network)(config).named_parameters()}
    return [name for name, p in network.named_parameters() if wider[name] != p.shape]


def arrange_head(network: PreTrainedModel, ours: Sequence[str], rows: Rows) -> None:
    """Give the head one row for each of our labels: the base's row where there is one, else a new one."""
    import torch

    names = head_parameters(network)
    old = {name: network.get_parameter(name).detach() for name in names}
    modules: dict[str, Any] = {}
    for name, values in old.items():
        place, _, leaf = name.rpartition(".")
        modules[place] = network.get_submodule(place)
        setattr(modules[place], leaf, torch.nn.Parameter(values.new_zeros(len(ours), *values.shape[1:])))
    for module in modules.values():
        network._init_weights(module)  # type: ignore[no-untyped-call]  # as the architecture draws new weights
        if hasattr(module, "out_features"):
            module.out_features = len(ours)
    taken = [at for at, row in enumerate(rows) if row is not None]
    with torch.no_grad():
        for name, values in old.items():
            network.get_parameter(name)[taken] = values[[row for row in rows if row is not None]]
    network.config.id2label = dict(enumerate(ours))
    network.config.label2id = {name: at for at, name in enumerate(ours)}
    if hasattr(network, "num_labels"):
        setattr(network, "num_labels", len(ours))  # noqa: B010  # no attribute that a Module declares
