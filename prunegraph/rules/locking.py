"""What stays as it is: ops that no rule can make smaller, and numbers that must keep their value."""

from collections.abc import Iterable
from typing import Any

from prunegraph.ir.trace import ValueSpec
from prunegraph.rules.base import Atoms, Call, Rule


class Locks(Rule):
    """Locks every labelled dimension of its operands and gives the plain reason; its outputs have fixed sizes."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def labels(self, call: Call) -> Any:
        for operand in call.tensors():
            call.lock_all(call.labels(operand), self.reason)
        return unlabelled(call)


def unlabelled(call: Call) -> Any:
    """Labels of outputs of fixed size: a tuple per output where there are several."""
    value = call.trace.values.get(call.node.name)
    if isinstance(value, tuple):
        return tuple((None,) * len(item.shape) if isinstance(item, ValueSpec) else None for item in value)
    return (None,) * len(call.output_shape)


def fixed_numbers(call: Call, *names: str) -> None:
    """Ties integer arguments that are no widths (kernel sizes, strides, FFT lengths) to the values they have.

    Where the code reads such a number from an attribute that is also a width, the width cannot change.
    """
    for name in names:
        value = call.get(name)
        if isinstance(value, list | tuple):
            for index, item in enumerate(value):
                _fix(call, name, index, item)
        else:
            _fix(call, name, None, value)


def _fix(call: Call, name: str, index: int | None, value: Any) -> None:
    if name in call.places and isinstance(value, int) and not isinstance(value, bool):
        call.require_size(name, index, None, value)


def united(call: Call, sides: Iterable[tuple[int, Atoms | None]], reason: str) -> Atoms | None:
    """Matches dimensions, given as pairs of size and atoms, that broadcast against each other.

    Sides of size 1 fit any number of channels; one of full size without labels locks the others.
    """
    full = [atoms for size, atoms in sides if size != 1]
    if not full:
        return None
    first, *rest = full
    for atoms in rest:
        first = call.match(first, atoms, reason)
    return first
