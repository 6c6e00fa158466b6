"""Checks that weights and states are finite. Others are neither saved nor loaded."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def not_finite(state: Any) -> list[str]:
    """The dotted names of the tensors, in dicts and lists of any depth, that hold nan or infinity."""
    flags: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in _tensors(state, ""):
        flags.setdefault(tensor.device, {})[name] = tensor.isfinite().all()
    found: list[str] = []
    for named in flags.values():  # one check per device, because each check makes a GPU wait
        finite = torch.stack(list(named.values())).tolist()
        found += [name for name, is_finite in zip(named, finite, strict=True) if not is_finite]
    return found


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Floating-point tensors by name."""
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield name, state
    elif isinstance(state, Mapping | list | tuple):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
