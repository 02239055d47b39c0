"""The private switches of torch that capture relies on, all in one place, tested for each supported version."""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import fx, nn
from torch._dispatch.python import no_python_dispatcher
from torch._functorch import apis
from torch._functorch.vmap import _process_batched_inputs
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree
from torch.utils._pytree import _broadcast_to_and_flatten

from prunegraph.capture.composites import COMPOSITES
from prunegraph.ir.trace import ValueSpec
from prunegraph.modules.attention import WidthFreeAttention, attention_forward

ATTENTION_MODULES: tuple[type, ...] = (nn.MultiheadAttention, WidthFreeAttention)
"""Modules whose forward is routed through `attention_forward`, an equal one without fused kernels."""

VALUE = "prunegraph_value"
"""Key of a node's metadata under which the specs of its value stand."""

_MODE_SWITCHES = (torch._C._set_grad_enabled,)
_DYNAMO = "torch._dynamo"
"""The machinery of torch.compile: it takes a second to load, so it is looked for only where it is loaded already."""

_vmap: Callable[..., Any] = apis.vmap_impl  # type: ignore[attr-defined]

_MOST_ITEMS = 16
"""Where more than a batch of positions is mapped, such as all pairs of times for a mask, a loop takes too long."""

_PROFILER = "profiler"
"""Namespace of the ops that ``torch.profiler.record_function`` leaves in the graph."""


def trace_aten(function: Callable[..., Any], tensors: list[torch.Tensor]) -> fx.GraphModule:
    """Records the ATen calls that ``function(*tensors)`` makes before autograd, on real values.

    Values read out of tensors (``.item()``, ``.tolist()``) are taken as they are in this run. Functions under
    torch.compile and torch.jit.script run as they are written, those under torch.vmap item by item.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            patch.object(proxy_tensor, "set_meta", _note_value),
            patch.object(proxy_tensor, "_enable_thunkify", _natively),
            _compiled_functions_as_written(),
            patch.object(apis, "vmap_impl", _item_by_item),
            patch.object(torch.jit.ScriptFunction, "__call__", _call_as_written),
        ):
            traced = proxy_tensor.make_fx(
                function, COMPOSITES, "real", pre_dispatch=True, _error_on_data_dependent_ops=False
            )(*tensors)
    for node in reversed(traced.graph.nodes):
        if (node.op == "get_attr" and not node.users) or not computes(node):
            traced.graph.erase_node(node)
    return traced


def computes(node: fx.Node) -> bool:
    """False for what only switches a mode or marks a place for the profiler."""
    return node.target not in _MODE_SWITCHES and getattr(node.target, "namespace", None) != _PROFILER


def is_within_transform(tensor: torch.Tensor) -> bool:
    """Whether it lives within a transform of torch.func only, such as the gradient of a function."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def is_compiled(module: nn.Module) -> bool:
    """Whether the module is in the hands of TorchScript or torch.compile, where its code is out of reach."""
    dynamo = sys.modules.get(_DYNAMO)
    optimized = dynamo is not None and isinstance(module, dynamo.OptimizedModule)
    return isinstance(module, torch.jit.ScriptModule) or optimized or module._compiled_call_impl is not None


def _compiled_functions_as_written() -> AbstractContextManager[Any]:
    """Lets functions under torch.compile be recorded; there are none where its machinery is not loaded yet."""
    dynamo = sys.modules.get(_DYNAMO)
    return nullcontext() if dynamo is None else dynamo.config.patch(error_on_nested_fx_trace=False)


_call_script: Callable[..., Any] = torch.jit.ScriptFunction.__call__


def _call_as_written(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs the Python function that a script function was made from; traced ones were made from none."""
    original = getattr(function, "_torchdynamo_inline", None)
    return _call_script(function, *args, **kwargs) if original is None else original(*args, **kwargs)


def _item_by_item(
    function: Callable[..., Any], in_dims: Any, out_dims: Any, randomness: str, chunk: Any, *args: Any, **kwargs: Any
) -> Any:
    """``torch.vmap`` as a loop, since batched values leave the record.

    Over many items that come from no input and no tensor of the network, its result is a constant.
    """
    count, dims, flat, structure = _process_batched_inputs(in_dims, args, function)
    if count > _MOST_ITEMS and not any(map(_comes_from_placeholder, flat)):
        with proxy_tensor.disable_proxy_modes_tracing():
            return _vmap(function, in_dims, out_dims, randomness, chunk, *args, **kwargs)
    results = []
    for item in range(count):
        values = [value if dim is None else value.select(dim, item) for value, dim in zip(flat, dims, strict=True)]
        results.append(function(*pytree.tree_unflatten(values, structure), **kwargs))
    flat_results, structures = zip(*(pytree.tree_flatten(result) for result in results), strict=True)
    places = _broadcast_to_and_flatten(out_dims, structures[0])
    stacked = [torch.stack(c, d) for c, d in zip(zip(*flat_results, strict=True), places or (), strict=True)]
    return pytree.tree_unflatten(stacked, structures[0])


def _comes_from_placeholder(value: Any) -> bool:
    """Whether a value was computed from an input or a tensor of the network."""
    mode = proxy_tensor.get_proxy_mode()
    slot = proxy_tensor.get_proxy_slot(value, mode.tracer, None) if mode and isinstance(value, torch.Tensor) else None
    waiting = [slot.proxy.node] if slot is not None else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.op == "placeholder":
            return True
        new = set(node.all_input_nodes) - seen
        seen |= new
        waiting += new
    return False


def _natively(tracer: Any, *, enable: bool = True) -> AbstractContextManager[Any]:
    """Around the run of a recorded op: lets torch's own kernels run it, its parts too, not Python's versions of them.

    Those take 10 times as long where an op has many parts. What is replaced only matters to symbolic sizes.
    """
    return no_python_dispatcher()


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


__all__ = ["ATTENTION_MODULES", "VALUE", "attention_forward", "is_compiled", "trace_aten", "value_spec"]
