"""The private switches of torch that capture relies on, all in one place, tested for each supported version."""

import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn
from torch.fx.experimental import proxy_tensor

from prunegraph.ir.trace import ValueSpec
from prunegraph.modules.attention import attention_forward

ATTENTION_MODULES: tuple[type, ...] = (nn.MultiheadAttention,)
"""Modules whose forward is routed through `attention_forward`, an equal one without fused kernels."""

VALUE = "prunegraph_value"
"""Key of a node's metadata under which the specs of its value stand."""

_MODE_SWITCHES = (torch._C._set_grad_enabled,)


def trace_aten(function: Callable[..., Any], tensors: list[torch.Tensor]) -> fx.GraphModule:
    """Records the ATen calls that ``function(*tensors)`` makes before autograd, on real values.

    Values read out of tensors (``.item()``, ``.tolist()``) are taken as they are in this run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with patch.object(proxy_tensor, "set_meta", _note_value):
            traced = proxy_tensor.make_fx(
                function, tracing_mode="real", pre_dispatch=True, _error_on_data_dependent_ops=False
            )(*tensors)
    for node in list(traced.graph.nodes):
        if node.target in _MODE_SWITCHES:
            traced.graph.erase_node(node)
    return traced


def _note_value(proxy: fx.Proxy, value: Any) -> fx.Proxy:
    """Keeps shape and element type only: torch would make a fake tensor of each value, at half of the time in all."""
    proxy.node.meta[VALUE] = value_spec(value)
    return proxy


def value_spec(value: Any) -> Any:
    """Shape and element type of a tensor; a tuple of them for nested values; None for anything else."""
    if isinstance(value, torch.Tensor):
        return ValueSpec(shape=tuple(int(n) for n in value.shape), dtype=value.dtype)
    if isinstance(value, list | tuple):
        return tuple(value_spec(item) for item in value)
    return None


__all__ = ["ATTENTION_MODULES", "VALUE", "attention_forward", "trace_aten", "value_spec"]
