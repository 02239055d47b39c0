"""Functions that hold parts of a network, such as the hook ``lambda m, x, y: self.kept.append(y)``, for copies of it.

`copy.deepcopy` takes functions as they are: in a copy of the network they would go on with the original.
"""

import copy
import functools
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn

from prunegraph.capture.settings import all_ordinary_attributes, is_filled, number_cells, settings_in

_NO_PARTS = (type, int, float, complex, str, bytes, type(None))


def functions_with_parts_of(model: nn.Module) -> list[FunctionType]:
    """The functions in attributes, hooks and classes whose closures or defaults hold parts of the network.

    Parts are modules, tensors and settings, and in attributes and hooks numbers. A class holds some if it was made
    within a function.
    """
    modules = list(model.modules())
    counting = {id(f): f for f in functions_held_by(model) if number_cells(f)}
    methods = [_methods(kind) for kind in {type(module) for module in modules}]
    held = (value for holder in (*map(vars, modules), *methods) for value in _within(holder))
    functions = {id(f): f for f in held if isinstance(f, FunctionType) and any(True for _ in _held_by(f))}
    parts = _parts(model) if functions else set()
    found = {
        key: f
        for key, f in functions.items()
        if any(id(value) in parts for item in _held_by(f) for value in _within(item))
    }
    return list((counting | found).values())


def functions_held_by(model: nn.Module) -> Iterator[FunctionType]:
    """All functions in attributes and hooks of its modules, and those that they hold."""
    for module in model.modules():
        yield from (value for value in _within(vars(module)) if isinstance(value, FunctionType))


def class_of_copies(kind: type[nn.Module], memo: dict[int, Any]) -> type[nn.Module]:
    """The class of a module's copy: the original's, or one below it with the copies of its methods."""
    methods = {name: memo[id(method)] for name, method in _methods(kind).items() if id(method) in memo}
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (kind,), names | methods) if methods else kind


def _methods(kind: type) -> dict[str, FunctionType]:
    """Those of the user's code that may still run: a copy is not constructed."""
    users = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in ("torch", "builtins")]
    found = {n: f for base in reversed(users) for n, f in vars(base).items() if isinstance(f, FunctionType)}
    return {name: method for name, method in found.items() if name != "__init__"}


def _parts(model: nn.Module) -> set[int]:
    containers = settings_in(value for _, value in all_ordinary_attributes(model))
    return {id(part) for part in (*containers, *model.parameters(), *model.buffers(), *model.modules())}


def unfilled_copy(function: FunctionType) -> FunctionType:
    """The same code with cells of its own, which are empty."""
    cells = tuple(CellType() for _ in function.__closure__ or ())
    made = FunctionType(function.__code__, function.__globals__, function.__name__, closure=cells or None)
    made.__qualname__, made.__module__, made.__doc__ = function.__qualname__, function.__module__, function.__doc__
    made.__annotations__ = function.__annotations__
    return made


def fill(made: FunctionType, function: FunctionType, memo: dict[int, Any]) -> None:
    """Puts into the copy of a function what it holds: copies of what was copied, everything else as it is."""
    made.__dict__.update((name, _counterpart(value, memo)) for name, value in function.__dict__.items())
    made.__defaults__ = function.__defaults__ and tuple(_counterpart(value, memo) for value in function.__defaults__)
    keywords = function.__kwdefaults__
    made.__kwdefaults__ = keywords and {name: _counterpart(value, memo) for name, value in keywords.items()}
    for cell, original in zip(made.__closure__ or (), function.__closure__ or (), strict=True):
        if is_filled(original):
            cell.cell_contents = _counterpart(original.cell_contents, memo)


def _counterpart(value: Any, memo: dict[int, Any]) -> Any:
    return copy.deepcopy(value, memo) if any(id(item) in memo for item in _within(value)) else value


def _held_by(function: FunctionType) -> Iterator[Any]:
    cells = (cell.cell_contents for cell in function.__closure__ or () if is_filled(cell))
    held = (*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return (value for value in held if not isinstance(value, _NO_PARTS))


def _within(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """The value, and what containers, methods, partial functions and closures in it hold; modules are not opened."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    inner: Any = ()
    if isinstance(value, FunctionType):
        inner = _held_by(value)
    elif isinstance(value, functools.partial):
        inner = (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        inner = (value.__self__, value.__func__)
    elif isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list | tuple | set):
        inner = value
    for item in inner:
        yield from _within(item, seen)
