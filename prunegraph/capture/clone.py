"""Copies of a network's module tree that share, or replace, its tensors.

Capture and surgery never touch the caller's network: they work on a copy. `copy.deepcopy` with a prepared memo copies
modules, hooks and plain attributes, and puts the given tensor wherever the original one was referred to: tied
parameters stay tied, and hidden references such as the weight lists of recurrent modules follow by themselves.
"""

import copy
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import nn

from prunegraph.capture.closures import class_of_copies, fill, functions_with_parts_of, unfilled_copy
from prunegraph.capture.settings import all_ordinary_attributes, own_attributes, settings_in
from prunegraph.errors import UnsupportedModelError

_Held: TypeAlias = "torch.Tensor | torch.jit.ScriptFunction[Any, Any] | ModuleType"


def registered_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers by state-dict name, tied ones under each of their names."""
    found: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    return found


def lasting_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a state dict holds: parameters and persistent buffers, tied ones under each of their names."""
    fleeting = _non_persistent_buffers(model)
    return {name: tensor for name, tensor in registered_tensors(model).items() if name not in fleeting}


def fleeting_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Non-persistent buffers and tensors in ordinary attributes: a forward pass may leave them, and change them."""
    fleeting = _non_persistent_buffers(model)
    return {n: tensor for n, tensor in registered_tensors(model).items() if n in fleeting} | plain_tensors(model)


def _non_persistent_buffers(model: nn.Module) -> set[str]:
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }


def plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors in ordinary attributes, also in lists and dicts, by the way to them: ``encoder.tables[0]``.

    Left out is what weight norm and its like compute anew from parameters in each forward.
    """
    known = {id(tensor) for tensor in (*registered_tensors(model).values(), *_derived_tensors(model))}
    held = ((name, held) for name, held in _held_in_attributes(model) if isinstance(held, torch.Tensor))
    return {name: tensor for name, tensor in held if id(tensor) not in known}


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, buffers, and those tensors in ordinary attributes that could be either."""
    usable = {
        name: tensor
        for name, tensor in plain_tensors(model).items()
        if tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    }
    return registered_tensors(model) | usable


def clone_with(model: nn.Module, replacement: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of the module tree that holds ``replacement[name]`` in the place of each named tensor.

    Further tensors, such as those that weight norm computes, are copied.

    Raises:
        UnsupportedModelError: the network cannot be copied; names the attribute that cannot.
    """
    named = named_tensors(model)
    memo: dict[int, Any] = {id(named[name]): tensor for name, tensor in replacement.items()}
    for _, held in _held_in_attributes(model):
        if id(held) not in memo:  # scripted functions and Python's modules refuse to be copied
            memo[id(held)] = _copied(held) if isinstance(held, torch.Tensor) else held
    try:
        clone: nn.Module = _deep_copy(model, dict(memo))
        return clone
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be copied (copy.deepcopy failed{_culprit(model, memo)}: "
            f"{type(error).__name__}: {error}); prunegraph works on a copy, so keep what cannot be copied (open files, "
            "locks, streams) outside the network"
        ) from error


def independent_copy(model: nn.Module) -> nn.Module:
    """A copy of the network with copies of all its tensors, without gradients."""
    return clone_with(model, {name: detached(tensor) for name, tensor in named_tensors(model).items()})


def detached(tensor: torch.Tensor) -> torch.Tensor:
    """A copy without gradient: a forward pass may write to buffers, and even to weights."""
    copied = tensor.detach().clone()
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def _deep_copy(value: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy` with a prepared memo; functions, and dicts with items as attributes, are copied by hand."""
    memo.update(_empty_dicts(value))
    functions = functions_with_parts_of(value) if isinstance(value, nn.Module) else []
    memo.update((id(function), unfilled_copy(function)) for function in functions)
    attributes = all_ordinary_attributes(value) if isinstance(value, nn.Module) else [("", value)]
    dicts = [item for item in settings_in(held for _, held in attributes) if _is_attribute_dict(item)]
    for original in dicts:
        memo[id(original)] = _empty_like(original)
    for original in dicts:
        made = memo[id(original)]
        for key, item in dict.items(original):
            dict.__setitem__(made, copy.deepcopy(key, memo), copy.deepcopy(item, memo))
        if own_attributes(original) is not original:
            own_attributes(made).update(copy.deepcopy(own_attributes(original), memo))
    copied = copy.deepcopy(value, memo)
    for function in functions:
        fill(memo[id(function)], function, memo)
    modules = list(copied.modules()) if isinstance(copied, nn.Module) else []
    kinds = {kind: class_of_copies(kind, memo) for kind in {type(module) for module in modules if functions}}
    for module in modules:
        _point_at_copies(vars(module), memo)
        if functions and kinds[type(module)] is not type(module):
            module.__class__ = kinds[type(module)]
    return copied


def _point_at_copies(attributes: dict[str, Any], memo: Mapping[int, Any]) -> None:
    """Weak references, which deepcopy leaves as they are, to the copies of what they refer to."""
    for name, held in attributes.items():
        if isinstance(held, weakref.ref) and id(held()) in memo:
            attributes[name] = weakref.ref(memo[id(held())])


def _empty_dicts(value: Any) -> dict[int, Any]:
    """Copies of the dicts without hooks, submodules or buffers: a dozen per module, most of what deepcopy works on."""
    holders = [vars(module) for module in value.modules()] if isinstance(value, nn.Module) else []
    held = [item for holder in holders for item in holder.values() if type(item) in (dict, OrderedDict)]
    return {id(item): item.copy() for item in held if not item}


def _is_attribute_dict(value: Any) -> bool:
    """A dict that shows its items as attributes, by its ``__dict__`` or ``__getattr__``, and has no way to be copied.

    `copy.deepcopy` loses the attributes of the first kind, and may take an item of the second for a method.
    """
    kind = type(value)
    shown = own_attributes(value) is value or hasattr(kind, "__getattr__")
    own_way = any(
        getattr(kind, name, None) is not getattr(object, name, None)
        for name in ("__deepcopy__", "__reduce__", "__reduce_ex__", "__setstate__")
    )
    return isinstance(value, dict) and shown and not own_way


def _empty_like(value: dict[Any, Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = type(value).__new__(type(value))
    if own_attributes(value) is value:
        object.__setattr__(made, "__dict__", made)
    return made


def _culprit(model: nn.Module, memo: Mapping[int, Any]) -> str:
    """Names the attribute that cannot be copied, where it is a single one."""
    for name, value in all_ordinary_attributes(model):
        try:
            _deep_copy(value, dict(memo))
        except Exception:
            return f" at {name}, a {type(value).__name__}"
    return ""


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of any tensor; `copy.deepcopy` refuses those that have a history, as the weights of weight norm do."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _held_in_attributes(model: nn.Module) -> Iterator[tuple[str, _Held]]:
    """Tensors, scripted functions and Python's modules in ordinary attributes, lists and dicts, and the way to them."""
    for name, value in all_ordinary_attributes(model):
        yield from _found_in(name, value)


def _derived_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """``weight``, computed from the parameters ``weight_v`` and ``weight_g`` or ``weight_orig``."""
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and any(p.startswith(f"{name}_") for p in module._parameters):
                yield value


def _found_in(name: str, value: Any) -> Iterator[tuple[str, _Held]]:
    if isinstance(value, torch.Tensor | torch.jit.ScriptFunction | ModuleType):
        yield name, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _found_in(f"{name}[{i}]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _found_in(f"{name}[{key!r}]", item)
