"""Copies of a network's module tree that share, or replace, its tensors.

Capture and surgery never touch the caller's network: they work on a copy. `copy.deepcopy` with a prepared memo copies
modules, hooks and plain attributes, and puts the given tensor wherever the original one was referred to: tied
parameters stay tied, and hidden references such as the weight lists of recurrent modules follow by themselves.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from prunegraph.errors import UnsupportedModelError


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers by state-dict name, tied ones under each of their names."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    return found


def clone_with(model: nn.Module, replacement: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of the module tree that holds ``replacement[name]`` in the place of each named tensor.

    Tensors that are not named (plain attributes) are copied.

    Raises:
        UnsupportedModelError: the network cannot be copied.
    """
    memo: dict[int, Any] = {id(tensor): replacement[name] for name, tensor in named_tensors(model).items()}
    for tensor in _plain_tensors(model):
        if id(tensor) not in memo:
            memo[id(tensor)] = _copied(tensor)
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied (copy.deepcopy failed: {error}); prunegraph works on a copy, so "
            "keep what cannot be copied (open files, locks, streams) outside the network"
        ) from error


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of any tensor; `copy.deepcopy` refuses those that have a history, as the weights of weight norm do."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _plain_tensors(model: nn.Module) -> Iterable[torch.Tensor]:
    """Tensors held in ordinary attributes, also inside lists and dicts."""
    for module in model.modules():
        for value in vars(module).values():
            yield from _tensors_in(value)


def _tensors_in(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_in(item)
