"""``int``, ``float`` and ``len`` of the network's own code: while it is recorded they keep the origin of numbers.

Python's own make ordinary numbers of them: ``x.view(b, int(channels / 2), -1)`` would fix what it views. Names that
code calls, or asks for instances of, can stand for something that does the same; where the name is used in another
way (``dtype=float``) it is left alone.
"""

import ast
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor, nn

from prunegraph.capture.literals import fractions
from prunegraph.capture.tracked import TrackedFloat, TrackedInt, as_float

_FOR_PEOPLE = frozenset({"__repr__", "extra_repr"})
"""Functions that are not run while a network is recorded."""


class _StandIn(type):
    """The type of what stands for a type of numbers."""

    plain: type
    convert: Callable[..., Any]

    def __call__(cls, *values: Any, **options: Any) -> Any:
        return cls.convert(*values, **options)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.plain)


def _as_int(*values: Any, **options: Any) -> Any:
    if len(values) == 1 and isinstance(values[0], TrackedInt | TrackedFloat):
        return values[0] if isinstance(values[0], TrackedInt) else math.trunc(values[0])
    return int(*values, **options)


def _as_float(*values: Any) -> Any:
    return fractions(as_float(*values) if values else 0.0)


class _Int(metaclass=_StandIn):
    plain: ClassVar = int
    convert = staticmethod(_as_int)


class _Float(metaclass=_StandIn):
    plain: ClassVar = float
    convert = staticmethod(_as_float)


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) and value.dim() else len(value)


STAND_INS: dict[str, Any] = {"int": _Int, "float": _Float, "len": _length}


def replaceable(classes: Iterable[type]) -> Iterator[tuple[ModuleType, str]]:
    """The modules in which the classes are written, with each name of `STAND_INS` that can be given another meaning."""
    classes = list(classes)
    for module in own_modules(classes):
        networks = {kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, nn.Module)}
        made_before = frozenset(kind.__name__ for kind in networks.union(classes))
        try:
            used = _otherwise_used(inspect.getsource(module), made_before)
        except (OSError, TypeError, SyntaxError):  # typed into a console, or compiled
            continue
        yield from ((module, word) for word in STAND_INS if word not in used and word not in vars(module))


def own_modules(classes: Iterable[type]) -> Iterator[ModuleType]:
    """The modules in which the classes are written, and those beside them whose functions they use.

    Left out are those of Python, torch and numpy.
    """
    waiting = [sys.modules.get(kind.__module__) for kind in classes]
    seen: dict[str, None] = {}
    while waiting:
        module = waiting.pop(0)
        if module is None or module.__name__ in seen or module.__name__.partition(".")[0] in _OTHERS:
            continue
        seen[module.__name__] = None
        yield module
        used = {str(value.__module__) for value in vars(module).values() if isfunction(value)}
        used |= {value.__name__ for value in vars(module).values() if isinstance(value, ModuleType)}
        waiting += [other for name in sorted(used) if _beside(module, other := sys.modules.get(name))]


_OTHERS = {*sys.stdlib_module_names, "torch", "numpy"} - {"__main__"}


def _beside(module: ModuleType, other: ModuleType | None) -> bool:
    """Whether both belong to one package, which is not this one, or lie in one folder."""
    files = [getattr(each, "__file__", None) for each in (module, other)]
    if other is None or None in files or module.__name__.startswith("prunegraph."):
        return False
    one_folder = Path(str(files[0])).parent == Path(str(files[1])).parent
    packages = [each.__name__.partition(".") for each in (module, other)]
    return packages[0][0] == packages[1][0] if all(rest for _, _, rest in packages) else one_folder


@lru_cache(maxsize=256)  # each record of a network asks for the same files
def _otherwise_used(source: str, made_before: frozenset[str]) -> frozenset[str]:
    """Names that functions which may run later use in other ways than calling them and asking for their instances.

    Args:
        source: the text of a file.
        made_before: classes of which there are instances already, so that what makes these does not run.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other people's code, which Python has given before
        tree = ast.parse(source)
    fine: set[int] = set()
    names: list[ast.Name] = []
    for node in _later(tree, made_before):
        if isinstance(node, ast.Name):
            names.append(node)
        elif isinstance(node, ast.AnnAssign):
            fine.update(id(part) for part in ast.walk(node.annotation))  # not evaluated within functions
        elif isinstance(node, ast.Call):
            fine.add(id(node.func))
            if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                fine.update(id(part) for kind in node.args[1:] for part in ast.walk(kind))
    return frozenset(node.id for node in names if id(node) not in fine or not isinstance(node.ctx, ast.Load))


def _later(tree: ast.Module, made_before: frozenset[str]) -> Iterator[ast.AST]:
    """Everything in the bodies of functions that may run."""
    kinds = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in made_before]
    made = {id(part) for kind in kinds for part in kind.body if getattr(part, "name", "") == "__init__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in _FOR_PEOPLE:
            for statement in node.body if id(node) not in made else ():
                yield from ast.walk(statement)
        elif isinstance(node, ast.Lambda):
            yield from ast.walk(node.body)
