"""Ranges of numpy made of tracked numbers, which torch is given as ranges of its own, and products of such numbers."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunegraph.capture.tracked import TrackedInt, expression_of, ordinary, track_numpy


class RangeOfSizes(np.ndarray[Any, Any]):
    """What ``np.arange`` makes of tracked numbers; whatever is made of it in turn forgets them, which is noted."""

    arguments: tuple[Any, ...] = ()

    def __array_finalize__(self, source: Any) -> None:
        _forget(getattr(source, "arguments", ()))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """What is computed with it is an ordinary array."""
        if "out" in options:
            options["out"] = tuple(map(_ordinary_array, options["out"]))
        return getattr(ufunc, method)(*map(_ordinary_array, inputs), **options)


def following_range(original: Callable[..., Any]) -> Callable[..., Any]:
    """``np.arange`` that remembers the numbers it was given, if one of them is tracked."""

    def arange(*arguments: Any, **options: Any) -> Any:
        if options or not any(expression_of(argument) for argument in arguments):
            return original(*arguments, **options)
        made = original(*map(_plain, arguments)).view(RangeOfSizes)
        made.arguments = arguments
        return made

    return arange


def following_product(original: Callable[..., Any]) -> Callable[..., Any]:
    """``np.prod`` that keeps the origin of the product of a list of numbers, if one of them is tracked."""

    def prod(values: Any, *arguments: Any, **options: Any) -> Any:
        is_plain = isinstance(values, list | tuple) and not arguments and not options
        found = math.prod(values) if is_plain and any(map(expression_of, values)) else None
        if isinstance(found, TrackedInt):
            return track_numpy(np.int64(_plain(found)), found.expression, found.journal)
        return original(values, *arguments, **options)

    return prod


def following_from_numpy(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.from_numpy`` that makes a range of sizes anew of these, unless something was written into it."""

    def from_numpy(array: Any) -> Tensor:
        arguments = array.arguments if isinstance(array, RangeOfSizes) else ()
        if arguments and np.array_equal(np.asarray(array), np.arange(*map(_plain, arguments))):
            return torch.arange(*arguments, dtype=original(np.asarray(array)).dtype)
        _forget(arguments)
        return original(array)

    return from_numpy


def _ordinary_array(value: Any) -> Any:
    if not isinstance(value, RangeOfSizes):
        return value
    _forget(value.arguments)
    return np.asarray(value)


def _forget(numbers: Iterable[Any]) -> None:
    for number in numbers:
        ordinary(number)


def _plain(number: Any) -> Any:
    """An ordinary number of a tracked one, whose origin is kept elsewhere; any other value as it is."""
    if expression_of(number) is None:
        return number
    return int.__int__(number) if isinstance(number, int) else float.__float__(number)
