"""Fractions in the network's own code and among its attributes, which let sizes that they meet keep their origin.

In ``0.5 * width`` Python asks the number on the left, and an ordinary float answers with an ordinary one, whatever
``width`` could tell.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

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


@contextmanager
def fractions_in(modules: Iterable[str]) -> Iterator[None]:
    """Lets the literals of all functions and methods written in these modules be fractions for the time being."""
    functions = {id(function): function for name in modules for function in _functions(name)}
    codes = [(function, function.__code__) for function in functions.values()]
    try:
        for function, code in codes:
            function.__code__ = _with_fractions(code)
        yield
    finally:
        for function, code in codes:
            function.__code__ = code


def _with_fractions(code: CodeType) -> CodeType:
    constants = tuple(
        _with_fractions(item) if isinstance(item, CodeType) else Fraction(item) if type(item) is float else item
        for item in code.co_consts
    )
    return code.replace(co_consts=constants)


def _functions(module: str) -> Iterator[FunctionType]:
    """Those that the module and its classes define, also behind decorators."""
    for value in list(vars(sys.modules[module]).values()) if module in sys.modules else ():
        held = vars(value).values() if isinstance(value, type) and value.__module__ == module else (value,)
        for item in list(held):
            yield from (function for function in _unwrapped(item) if function.__module__ == module)


def _unwrapped(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, FunctionType):
        yield value
        yield from _unwrapped(vars(value).get("__wrapped__"))
    elif isinstance(value, staticmethod | classmethod):
        yield from _unwrapped(value.__func__)
    elif isinstance(value, property):
        yield from _unwrapped(value.fget)
