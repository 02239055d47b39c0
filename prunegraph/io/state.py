"""What a network's code does not tell: everything that must be stored so that its outputs come back bit by bit.

A state dict is not enough. It leaves out non-persistent buffers, which shrink like others, tensors in ordinary
attributes, training flags and memory formats, each of which changes outputs or their last bits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from prunegraph.capture.clone import fleeting_tensors, lasting_tensors
from prunegraph.capture.memory_format import channels_last, is_channels_last
from prunegraph.errors import FileFormatError, InputError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkState:
    """The state of one network.

    Attributes:
        tensors: parameters and persistent buffers by name, each distinct tensor once; then non-persistent buffers and
            tensors of ordinary attributes (``fleeting:path.name``), and those of extra state (``extra:path.key``).
        aliases: further name of a tied tensor -> the name under which it stands.
        channels_last: names of the tensors with that memory format.
        training: paths of the modules in training mode.
        extra: module path -> what ``get_extra_state`` returned, as `_encoded` writes it.
    """

    tensors: Mapping[str, torch.Tensor]
    aliases: Mapping[str, str]
    channels_last: tuple[str, ...]
    training: tuple[str, ...]
    extra: Mapping[str, Any]


def state_of(model: nn.Module) -> NetworkState:
    """Reads the state of a network; parameters and buffers share its memory, what else may overlap them is copied.

    Raises:
        InputError: a tensor is sparse, or extra state holds something else than tensors and plain values.
    """
    names = _first_names(model)
    tensors = {name: tensor.detach() for name, tensor in lasting_tensors(model).items() if names[name] == name}
    tensors.update((f"fleeting:{key}", tensor.detach().clone()) for key, tensor in fleeting_tensors(model).items())
    extra = {}
    for path, module in _with_extra_state(model):
        extra[path] = _encoded(module.get_extra_state(), f"extra:{path}", tensors)
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided:
            raise InputError(f"{name} cannot be saved: it is of layout {tensor.layout}; make it dense first")
    return NetworkState(
        tensors=tensors,
        aliases={alias: name for alias, name in names.items() if alias != name},
        channels_last=tuple(name for name, tensor in tensors.items() if is_channels_last(tensor)),
        training=tuple(path for path, module in model.named_modules() if module.training),
        extra=extra,
    )


def restore_state(model: nn.Module, state: NetworkState) -> None:
    """Puts a state into a network that was made for it, on the network's device and in the state's element types.

    Raises:
        FileFormatError: the state is of another network; names the first tensor that differs.
    """
    names = _first_names(model)
    _check_same_names(set(names.values()), state)
    for name, tensor in lasting_tensors(model).items():
        if names[name] == name:
            _check_shape(name, tensor, state.tensors[name])
            tensor.data = _formatted(name, state).to(tensor.device)
    for key, tensor in fleeting_tensors(model).items():
        stored = state.tensors.get(f"fleeting:{key}")
        if stored is not None and stored.shape == tensor.shape:
            tensor.data = stored.to(tensor.device)
    for path, module in _with_extra_state(model):
        if path in state.extra:
            module.set_extra_state(_decoded(state.extra[path], state.tensors))
    for path, module in model.named_modules():
        module.training = path in state.training
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()


def _first_names(model: nn.Module) -> dict[str, str]:
    """Name -> the first name of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in lasting_tensors(model).items()}


def _with_extra_state(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield path, module


def _encoded(value: Any, key: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Extra state as JSON that tells tuples from lists; its tensors go into ``tensors``."""
    if isinstance(value, torch.Tensor):
        tensors[key] = value.detach()
        return {"tensor": key}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encoded(item, f"{key}.{name}", tensors) for name, item in value.items()}}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encoded(item, f"{key}.{i}", tensors) for i, item in enumerate(value)]}
    raise InputError(
        f"the extra state at {key.removeprefix('extra:') or '(network)'} is of type {type(value).__name__}; "
        "only tensors, numbers, text, lists, tuples and dicts of them are saved, since nothing is pickled"
    )


def _decoded(raw: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    ((kind, content),) = raw.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {name: _decoded(item, tensors) for name, item in content.items()}
    if kind in ("list", "tuple"):
        items = [_decoded(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content


def _formatted(name: str, state: NetworkState) -> torch.Tensor:
    tensor = state.tensors[name]
    return channels_last(tensor) if name in state.channels_last else tensor


def _check_same_names(expected: set[str], state: NetworkState) -> None:
    stored = {name for name in state.tensors if not name.startswith(("fleeting:", "extra:"))}
    if stored != expected:
        name = sorted(stored ^ expected)[0]
        where = "missing in the saved network" if name in expected else "not in this network, or tied to another there"
        raise FileFormatError(f"another network was saved: tensor {name} is {where}")


def _check_shape(name: str, tensor: torch.Tensor, stored: torch.Tensor) -> None:
    if tensor.shape != stored.shape:
        raise FileFormatError(
            f"another network was saved: tensor {name} has shape {tuple(stored.shape)} there, "
            f"{tuple(tensor.shape)} here"
        )
