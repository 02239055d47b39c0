"""Makes Python transparent for tracked numbers while a network is being recorded, and restores it afterwards.

Some things hide where a size came from: ``math`` functions return plain floats, ``int`` and ``float`` ordinary numbers,
memoised functions (as einops uses them) sizes that were computed for another tensor, and nobody is told of calls like
``torch.IntTensor([size])`` or ``torch.from_numpy(np.arange(size))``.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from prunegraph.capture.conversions import STAND_INS, own_modules, replaceable
from prunegraph.capture.literals import fractions, fractions_in
from prunegraph.capture.numbers_in_arrays import following_from_numpy, following_product, following_range
from prunegraph.capture.numbers_in_tensors import CONSTRUCTORS
from prunegraph.capture.tracked import TrackedFloat, TrackedInt, ordinary

_MATH = {"sqrt": "sqrt", "log": "log", "log2": "log2", "log10": "log10", "exp": "exp", "pow": "pow"}
"""Functions of ``math`` and the operations that they are."""

_INTEGERS = "gcd lcm isqrt comb perm factorial ldexp"
_ANGLES = "cos sin tan acos asin atan atan2 cosh sinh tanh acosh asinh atanh degrees radians hypot"
_FLOATS = "modf frexp fmod remainder copysign fabs log1p expm1 exp2 cbrt erf erfc gamma lgamma nextafter ulp"
_MATH_OF_ORDINARY_NUMBERS = tuple(f"{_INTEGERS} {_ANGLES} {_FLOATS}".split())
"""Functions of ``math`` that have no counterpart, and take numbers without asking them."""

_Memoised = type(functools.lru_cache(lambda: None))


_CONSTANTS = ((math, "pi"), (math, "e"), (math, "tau"), (np, "pi"), (np, "e"))


@contextmanager
def transparent_python(classes: Iterable[type] = (), functions: Iterable[FunctionType] = ()) -> Iterator[None]:
    """Keeps the origin of numbers through ``math`` and bypasses memoised functions of other packages.

    Args:
        classes: of the network's modules; where they are written, ``int``, ``float`` and literals keep the origin, too.
        functions: those that the network holds.
    """
    with ExitStack() as stack:
        classes = list(classes)
        stack.enter_context(fractions_in(own_modules(classes), classes, functions))
        for package, name in _CONSTANTS:
            stack.enter_context(patch.object(package, name, fractions(getattr(package, name))))
        for module, name in list(replaceable(classes)):
            stack.enter_context(patch.object(module, name, STAND_INS[name], create=True))
        for name, operation in _MATH.items():
            stack.enter_context(patch.object(math, name, _transparent(operation, getattr(math, name))))
        for name in _MATH_OF_ORDINARY_NUMBERS:
            stack.enter_context(patch.object(math, name, _of_ordinary_numbers(getattr(math, name))))
        for name, constructor in CONSTRUCTORS.items():
            stack.enter_context(patch.object(torch, name, constructor))
        stack.enter_context(patch.object(np, "arange", following_range(np.arange)))
        stack.enter_context(patch.object(np, "prod", following_product(np.prod)))
        stack.enter_context(patch.object(torch, "from_numpy", following_from_numpy(torch.from_numpy)))
        for module, name, function in list(_memoised_functions()):
            stack.enter_context(patch.object(module, name, function.__wrapped__))
        yield


def _transparent(name: str, original: Callable[..., float]) -> Callable[..., float]:
    def function(*values: Any) -> Any:
        tracked = next((value for value in values if isinstance(value, TrackedInt | TrackedFloat)), None)
        found = NotImplemented if tracked is None else tracked._apply(name, *values)
        return fractions(original(*values)) if found is NotImplemented else found

    return function


def _of_ordinary_numbers(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *values: fractions(original(*map(ordinary, values)))


def _memoised_functions() -> Iterator[tuple[Any, str, Any]]:
    for module_name, module in list(sys.modules.items()):
        root = module_name.partition(".")[0]
        if root in sys.stdlib_module_names or root in ("torch", "prunegraph"):
            continue
        for name, value in list(vars(module).items() if hasattr(module, "__dict__") else ()):
            if type(value) is _Memoised:
                yield module, name, value
