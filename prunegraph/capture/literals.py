"""Fractions in the network's own code and among its attributes, which let sizes that they meet keep their origin.

In ``0.5 * width`` Python asks the number on the left, and an ordinary float answers with an ordinary one, whatever
``width`` could tell.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from types import CodeType, FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

from prunegraph.capture.tracked import TrackedFloat, TrackedInt


class Fraction(float):
    """A float that leaves the answer to a tracked number on its right; of others it makes further ones of its kind."""


def _binary(name: str, theirs: str) -> Callable[[Fraction, Any], Any]:
    ours = getattr(float, name)

    def method(self: Fraction, other: Any) -> Any:
        if isinstance(other, TrackedInt | TrackedFloat):
            return getattr(other, theirs)(float(self))
        return _kept(ours(self, other))

    return method


def _unary(name: str) -> Callable[[Fraction], Any]:
    ours = getattr(float, name)
    return lambda self: _kept(ours(self))


def _kept(value: Any) -> Any:
    return Fraction(value) if type(value) is float else value


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Fraction, f"__{_name}__", _binary(f"__{_name}__", f"__r{_name}__"))
    setattr(Fraction, f"__r{_name}__", _binary(f"__r{_name}__", f"__{_name}__"))
for _name, _theirs in {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}.items():
    setattr(Fraction, f"__{_name}__", _binary(f"__{_name}__", f"__{_theirs}__"))
for _name in ("neg", "pos", "abs"):
    setattr(Fraction, f"__{_name}__", _unary(f"__{_name}__"))


def fractions(value: Any) -> Any:
    """Fractions in the place of floats, also within tuples, lists and dicts of constants; anything else as it is."""
    if type(value) is float:
        return Fraction(value)
    if not _is_constant(value) or isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        pairs = {key: fractions(item) for key, item in value.items()}
        return pairs if any(pairs[key] is not item for key, item in value.items()) else value
    made = type(value)(map(fractions, value))
    return made if any(new is not old for new, old in zip(made, value, strict=True)) else value


_PLAIN = (float, int, str, type(None))


def _is_constant(value: Any) -> bool:
    """A number or text, or a container of nothing else."""
    if type(value) in (tuple, list):
        return all(map(_is_constant, value))
    return all(map(_is_constant, value.values())) if type(value) is dict else isinstance(value, _PLAIN)


@contextmanager
def fractions_in(
    modules: Iterable[ModuleType], classes: Iterable[type], functions: Iterable[FunctionType]
) -> Iterator[None]:
    """Lets floats that are written in code be fractions for the time being.

    Args:
        modules: where the network is written: their constants, and the literals and defaults of their functions.
        classes: those of the network, of which the ones that are written in these modules count, too.
        functions: those that the network holds, likewise.
    """
    written = {module.__name__: module for module in modules}
    kinds = {*classes, *(value for module in written.values() for value in vars(module).values() if _is_class(value))}
    holders: list[ModuleType | type] = [*written.values(), *(kind for kind in kinds if kind.__module__ in written)]
    held = [*functions, *(function for holder in holders for function in _functions(holder))]
    with ExitStack() as stack:
        for function in {id(function): function for function in held if function.__module__ in written}.values():
            stack.enter_context(_literals_of(function))
        for holder in holders:
            for name, value in list(vars(holder).items()):
                if not name.startswith("__") and (made := fractions(value)) is not value:
                    stack.enter_context(patch.object(holder, name, made))
        yield


@contextmanager
def _literals_of(function: FunctionType) -> Iterator[None]:
    before = function.__code__, function.__defaults__, function.__kwdefaults__
    try:
        function.__code__ = _with_fractions(function.__code__)
        function.__defaults__ = tuple(map(fractions, function.__defaults__ or ())) or None
        function.__kwdefaults__ = {n: fractions(v) for n, v in (function.__kwdefaults__ or {}).items()} or before[2]
        yield
    finally:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before


def _with_fractions(code: CodeType) -> CodeType:
    constants = tuple(
        _with_fractions(item) if isinstance(item, CodeType) else fractions(item) for item in code.co_consts
    )
    return code.replace(co_consts=constants)


def _is_class(value: Any) -> bool:
    return isinstance(value, type) and not issubclass(value, Enum)


def _functions(holder: ModuleType | type) -> Iterator[FunctionType]:
    """Those that a module or class defines, also behind decorators."""
    for value in list(vars(holder).values()):
        yield from _unwrapped(value)


def _unwrapped(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, FunctionType):
        yield value
        yield from _unwrapped(vars(value).get("__wrapped__"))
    elif isinstance(value, staticmethod | classmethod):
        yield from _unwrapped(value.__func__)
    elif isinstance(value, property):
        yield from _unwrapped(value.fget)
    elif isinstance(value, functools.cached_property):
        yield from _unwrapped(value.func)
    elif type(value) in (tuple, list, dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _unwrapped(item)
