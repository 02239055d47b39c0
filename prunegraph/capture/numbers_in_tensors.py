"""Remembers which tracked numbers a tensor was made of, so that they come out of it as they went in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from prunegraph.capture.numbers_in_arrays import RangeOfSizes
from prunegraph.capture.tracked import ordinary

_Numbers = int | list[Any]


def _only(numbers: _Numbers) -> int:
    return _only(numbers[0]) if isinstance(numbers, list) else numbers


_READ: dict[Any, Callable[[_Numbers], Any]] = {
    Tensor.item: _only,
    Tensor.tolist: lambda numbers: numbers,
    Tensor.__int__: lambda numbers: ordinary(_only(numbers)),
    Tensor.__index__: lambda numbers: ordinary(_only(numbers)),
}
"""What takes numbers out of a tensor, and how from the numbers that it was made of."""

_PLACE = {torch.tensor: 0, torch.as_tensor: 0, Tensor.new_tensor: 1}
"""What makes tensors of numbers, and the place of these among its arguments."""


class NumbersInTensors:
    """Integers in tensors like ``torch.tensor([width])``, until something is written into them."""

    def __init__(self) -> None:
        self._known: Any = WeakTensorKeyDictionary()

    def note_made(self, func: Any, args: Any, result: Tensor) -> None:
        """Keeps the integers that a tensor of integers is made of."""
        if func in _PLACE and len(args) > _PLACE[func]:
            self._note(result, args[_PLACE[func]])

    def _note(self, tensor: Tensor, numbers: Any) -> None:
        if not (tensor.is_floating_point() or tensor.is_complex()) and _are_integers(numbers):
            self._known[tensor] = numbers, tensor._version

    def read(self, func: Any, args: Any) -> Any:
        """What a call takes out of a tensor of known numbers; None where there is no such tensor."""
        numbers = self._of(args[0]) if func in _READ else None
        return None if numbers is None else _READ[func](numbers)

    def note_item(self, func: Any, args: Any, result: Any) -> None:
        """Follows ``tensor[i]`` and ``tensor[i:j]``."""
        if func is Tensor.__getitem__ and isinstance(args[1], int | slice):
            numbers = self._of(args[0])
            if isinstance(numbers, list):
                self._note(result, numbers[args[1]])

    def in_slices(self, func: Any, args: Any) -> Any:
        """The arguments of an indexing with numbers where limits of slices are tensors of them."""
        if func not in (Tensor.__getitem__, Tensor.__setitem__):
            return args
        tensor, index, *value = args
        return tensor, tuple(map(self._limits, index)) if type(index) is tuple else self._limits(index), *value

    def _limits(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return index
        return slice(*(self._number(limit) for limit in (index.start, index.stop, index.step)))

    def _number(self, limit: Any) -> Any:
        numbers = self._of(limit)
        return limit if numbers is None else _only(numbers)

    def _of(self, value: Any) -> _Numbers | None:
        numbers, version = self._known.get(value, (None, None)) if isinstance(value, Tensor) else (None, None)
        return numbers if version is not None and value._version == version else None


def _are_integers(numbers: Any) -> bool:
    if isinstance(numbers, list | tuple):
        return all(map(_are_integers, numbers))
    return isinstance(numbers, int) and not isinstance(numbers, bool)


class _Constructor(type):
    """Stands for one of torch's typed constructors, such as ``torch.IntTensor``, of whose calls no mode is told."""

    typed: Any

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], list | tuple | RangeOfSizes):
            return torch.tensor(args[0], dtype=cls.typed.dtype, **options)
        return cls.typed(*args, **options)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.typed)


CONSTRUCTORS = {
    name: _Constructor(name, (), {"typed": getattr(torch, name)})
    for name in ("IntTensor", "LongTensor", "FloatTensor", "DoubleTensor")
}
"""Stand-ins for torch's typed constructors, by their names; ``torch.tensor`` does their work."""


def typed(kind: Any) -> Any:
    """What a stand-in stands for; anything else as it is."""
    return kind.typed if isinstance(kind, _Constructor) else kind
