"""Carries an optimizer over to the pruned network, so that pruning can happen in the middle of training."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from prunegraph.errors import SurgeryError
from prunegraph.ir.plan import PruningPlan
from prunegraph.surgery.slicing import slice_tensor


def slice_optimizer(optimizer: Optimizer, model: nn.Module, pruned: nn.Module, plan: PruningPlan) -> Optimizer:
    """A new optimizer of the same class for the pruned network; the given one is untouched.

    Parameter groups keep their settings and order. State that has the shape of its parameter (the moments of Adam and
    AdamW, the momentum of SGD) is sliced like it; other state (step counts) is copied.

    Raises:
        SurgeryError: the optimizer holds a parameter that the network does not.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    new = dict(pruned.named_parameters())
    groups = [
        {**_settings(group), "params": [new[_name(parameter, names)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    successor = type(optimizer)(groups, **_defaults(optimizer))
    for parameter, state in optimizer.state.items():
        name = _name(parameter, names)
        kept = plan.tensors.get(name, {})
        successor.state[new[name]] = {key: _sliced(value, parameter.shape, kept) for key, value in state.items()}
    return successor


def _name(parameter: torch.Tensor, names: Mapping[int, str]) -> str:
    if id(parameter) not in names:
        raise SurgeryError(
            f"the optimizer holds a parameter of shape {tuple(parameter.shape)} that is not one of the network's; "
            "give the optimizer that was made from this network's parameters"
        )
    return names[id(parameter)]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}


def _defaults(optimizer: Optimizer) -> dict[str, Any]:
    """The constructor's arguments; the groups carry all settings, so that defaults matter only for required ones."""
    names = type(optimizer).__init__.__code__.co_varnames
    return {key: value for key, value in optimizer.defaults.items() if key in names}


def _sliced(value: Any, shape: torch.Size, kept: Mapping[int, Sequence[int]]) -> Any:
    if not isinstance(value, torch.Tensor):
        return copy.deepcopy(value)
    if value.shape != shape:
        return value.detach().clone()
    return slice_tensor(value, kept).clone()
