"""Settings that modules hold in ordinary attributes: numbers in lists, tuples, dicts, plain objects and closures.

The parts of such an object are named by the step to them, as it is written in Python: ``[0]``, ``['width']``,
``.width``; so are the numbers in the closure of a function.
"""

import enum
import functools
import inspect
import re
from collections.abc import Iterable, Iterator
from types import CellType, FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

_INTERNAL = frozenset(vars(nn.Module())) | {"_flat_weights", "_version"}
"""What modules hold for torch's own use."""

_STEP = re.compile(r"\.?([^\W\d]\w*)|\[(\d+)\]|\['([^']*)'\]")


def steps_of(name: str) -> list[str | tuple[int | str]]:
    """``config.sizes[0]`` -> "config", "sizes", (0,)."""
    return [attribute or ((int(index),) if index else (key,)) for attribute, index, key in _STEP.findall(name)]


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What the value holds, with the step to it; nothing for what is neither a container nor a settings object."""
    if is_namedtuple(value):
        yield from ((f".{field}", item) for field, item in zip(value._fields, value, strict=True))
    elif is_sequence(value):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, functools.partial):
        yield ".keywords", value.keywords
    elif isinstance(value, FunctionType):
        yield from ((f".{name}", cell.cell_contents) for name, cell in number_cells(value).items())
    else:
        if isinstance(value, dict):
            yield from ((f"[{key!r}]", item) for key, item in dict.items(value) if _can_be_named(key))
        if is_record(value) and own_attributes(value) is not value:
            fields = own_attributes(value).items()
            yield from ((f".{name}", item) for name, item in fields if _is_field(name, type(value)))


def number_cells(function: FunctionType) -> dict[str, CellType]:
    """The cells of a function's closure that hold integers, or functions that may, by the names of the variables."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    filled = {name: cell for name, cell in cells if is_filled(cell)}
    return {
        name: c for name, c in filled.items() if type(c.cell_contents) is int or type(c.cell_contents) is FunctionType
    }


def is_filled(cell: CellType) -> bool:
    """Whether the variable of a closure has a value yet."""
    try:
        cell.cell_contents  # noqa: B018 - it raises where there is none
    except ValueError:
        return False
    return True


def settings_in(values: Iterable[Any]) -> Iterator[Any]:
    """The containers and settings objects among the values and within them, each once."""
    seen: set[int] = set()

    def within(value: Any) -> Iterator[Any]:
        parts = [item for _, item in parts_of(value)] if id(value) not in seen else []
        if parts or isinstance(value, dict):
            seen.add(id(value))
            yield value
        for item in parts:
            yield from within(item)

    for value in values:
        yield from within(value)


def ordinary_attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of one module that are not for torch's own use."""
    yield from ((name, value) for name, value in list(vars(module).items()) if name not in _INTERNAL)


def class_constants(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Integers, and lists and tuples of them, that the module's class defines and the module itself does not."""
    known = {*vars(module), *vars(nn.Module), *_INTERNAL}
    for kind in type(module).__mro__:
        for name, value in vars(kind).items():
            items = value if type(value) in (list, tuple) else (value,)
            if items and all(type(item) is int for item in items) and name not in known:
                known.add(name)
                yield name, value


def all_ordinary_attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Those of all modules, by the way to them: ``encoder.config``."""
    for path, module in model.named_modules():
        yield from ((f"{path}.{name}" if path else name, value) for name, value in ordinary_attributes(module))


def is_sequence(value: Any) -> bool:
    """A list or tuple that can be made anew from its items."""
    return type(value) in (tuple, list, torch.Size) or is_namedtuple(value)


def is_namedtuple(value: Any) -> bool:
    """A tuple whose items have names."""
    return isinstance(value, tuple) and hasattr(value, "_fields")


def is_record(value: Any) -> bool:
    """A plain object that holds settings: a dataclass, a namespace, a config."""
    known = isinstance(value, nn.Module | torch.Tensor | enum.Enum | type | ModuleType) or callable(value)
    return not known and not type(value).__module__.startswith("torch.") and bool(own_attributes(value))


def own_attributes(value: Any) -> dict[str, Any]:
    """The object's ``__dict__``, without asking a ``__getattr__`` of its class; empty where it has none."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def with_items(sequence: Any, items: Iterable[Any]) -> Any:
    """A list or tuple of the same kind with other items."""
    return sequence._make(items) if is_namedtuple(sequence) else type(sequence)(items)


def _can_be_named(key: Any) -> bool:
    return type(key) in (int, str) and steps_of(f"[{key!r}]") == [(key,)]


def _is_field(name: Any, kind: type) -> bool:
    """Whether the name reads and sets the entry of ``__dict__``, and not a property."""
    return str(name).isidentifier() and not inspect.isdatadescriptor(inspect.getattr_static(kind, name, None))
